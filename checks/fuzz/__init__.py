"""Damaged files, and images of every size."""
