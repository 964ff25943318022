"""Measures how well and how fast files meet a size or a rate that is asked for."""
