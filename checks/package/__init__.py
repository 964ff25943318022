"""Builds, installs and tries the distributions."""
