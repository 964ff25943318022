"""Compares this project with CompressAI, with the same weights in both."""
