"""Measure what each part of the encoder's search is worth."""
