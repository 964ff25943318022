"""The same weights in CompressAI and here."""
