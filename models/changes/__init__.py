"""What changed in a series of dates: seasons of earlier years, what pixels share, runs of departures; numpy alone."""
