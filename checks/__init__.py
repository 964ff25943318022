"""What `make` proves and `pytest` does not run: minutes to hours each."""
