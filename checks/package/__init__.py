"""The distributions are built, installed and tried."""
