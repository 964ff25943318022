"""Equal latents under every circumstance."""
