"""Strides between image, latents and hyper-latents, and how far the paper's networks see. No torch."""

from __future__ import annotations

STRIDE = 16
"""Pixels per latent along each axis; images are padded to multiples of it."""
HYPER_STRIDE = 4
"""Latents per hyper-latent along each axis."""
REACH = 30
"""Receptive field radius in pixels of the paper's g_a and g_s, see `transforms.Transforms.reach`."""
HYPER_REACH = 7
"""Receptive field radius in latents of the paper's h_a and h_s, see `hyperprior.HyperTransforms.reach`."""
