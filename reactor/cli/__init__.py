"""The command line: modules that parse and call."""
