"""Measures the memory that many photographs take."""
