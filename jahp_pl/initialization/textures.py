"""Generates textures with the statistics of photographs, from which initial weights are computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SPECTRAL_EXPONENT = 1.4
"""Exponent of the amplitude spectrum 1 / f^1.4. Natural scenes have about 1; photographs have more, because
optics blur them."""
CONTRASTS = (0.35, 0.0875, 0.042)
"""Standard deviations along the three orthonormal axes of `OPPONENT_AXES`, for images in [0, 1]."""
OPPONENT_AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))
"""Axes in RGB: gray, red against blue, green against magenta; normalized when they are used."""


def pink_images(num_images: int, size: int, seed: int) -> Tensor:
    """Generate Gaussian textures with the spectrum and colors of photographs.

    Args:
        num_images: B.
        size: height and width in pixels.
        seed: seed of the textures; equal arguments give equal textures.

    Returns:
        (B, 3, size, size), with mean 0.5 and not clipped to [0, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.fft.fftfreq(2 * size)[:, None], torch.fft.rfftfreq(2 * size)[None]
    # Opposite borders of a periodic texture match, so it is made at twice the size, and a quarter of it is kept.
    amplitudes = (rows.square() + columns.square() + (0.5 / size) ** 2) ** (-SPECTRAL_EXPONENT / 2)
    white = torch.randn(num_images, 3, 2 * size, 2 * size, generator=generator)
    texture = torch.fft.irfft2(torch.fft.rfft2(white) * amplitudes)[..., :size, :size]
    axes = F.normalize(torch.tensor(OPPONENT_AXES), dim=1) * torch.tensor(CONTRASTS)[:, None]
    return 0.5 + torch.einsum("oc,bohw->bchw", axes, texture / texture.std())
