"""From models and codecs to numbers and pictures."""
