"""Checks that take minutes to hours each; `make` runs them and `pytest` does not."""
