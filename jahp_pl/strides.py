"""Strides between image, latents and hyper-latents. No torch."""

from __future__ import annotations

STRIDE = 16
"""Pixels per latent along each axis; images are padded to multiples of it."""
HYPER_STRIDE = 4
"""Latents per hyper-latent along each axis."""
