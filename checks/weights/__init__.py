"""Measures what the parts of a trained model save, and how it codes images unlike photographs."""
