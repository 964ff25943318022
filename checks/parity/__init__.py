"""Compare with CompressAI, given the same weights."""
