"""Entropy coding of the latents: exact networks, tables, the range coder and the order of positions."""
