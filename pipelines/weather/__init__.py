"""Weather files in one form: times, intervals, regions, units, elevation."""
