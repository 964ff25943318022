"""Runs the transforms for the codec, in tiles, on a backend for CPUs or with torch's convolutions."""
