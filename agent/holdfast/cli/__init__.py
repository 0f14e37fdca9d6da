"""Floor 5: the command line, one subcommand a file."""
