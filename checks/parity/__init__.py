"""The same weights in CompressAI and in this project."""
