"""Trainings that are killed repeatedly."""
