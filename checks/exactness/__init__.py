"""Latents must be equal under all circumstances."""
