"""Checks that take minutes to hours each; `make` runs them, `pytest` does not."""
