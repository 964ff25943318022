"""Measures how much each part of a trained model saves, and how it codes images that are unlike photographs."""
