"""The transforms as the codec runs them: in tiles, on a backend for CPUs or on torch's convolutions."""
