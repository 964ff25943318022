"""Reads still images of many formats as RGB, with their colours converted correctly."""
