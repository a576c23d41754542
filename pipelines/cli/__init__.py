"""The command line: one table of commands, how options are spelled, help, completion."""
