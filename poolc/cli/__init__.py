"""The command line: one file a command. Commands parse, call one library function and print."""
