"""Reads still images of many formats as RGB, with their colors converted correctly."""
