"""The command line. Each group of related commands has one file, with their options and their implementation."""
