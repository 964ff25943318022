"""Measures the gain of each part of the encoder's search."""
