"""The encoder's search for latents that need fewer bits (docs/refinement.md).

`refinement` searches an image tile by tile, `latent_search` moves the latents of one tile, and `latent_objective` is
what they minimize: bits and distortion, with `structural_distortion` as a part.
"""
