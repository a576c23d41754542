"""Many maps of overlapping ground as one."""
