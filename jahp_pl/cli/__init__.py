"""The command line: one file per group of commands, with their implementation and some with their options."""
