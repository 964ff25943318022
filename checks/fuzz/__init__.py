"""Fuzzing: decodes damaged files, and codes images of every size."""
