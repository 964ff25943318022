"""Check that latents are equal under every circumstance."""
