"""The command line: one file per group of commands, its options and what runs."""
