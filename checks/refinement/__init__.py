"""What each part of the encoder's search is worth."""
