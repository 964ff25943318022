"""Build, install and try the distributions."""
