"""Checks that decoding gives the same latents under all circumstances."""
