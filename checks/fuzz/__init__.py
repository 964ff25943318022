"""Decode damaged files; code images of every size."""
