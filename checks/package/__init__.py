"""The distributions, built, installed and tried."""
