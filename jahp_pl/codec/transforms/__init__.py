"""The transforms as the codec runs them: in tiles, by torch or by the form for CPUs."""
