"""Measures how memory grows with the number of photographs."""
