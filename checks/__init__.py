"""Checks of minutes to hours that `make` runs and `pytest` does not."""
