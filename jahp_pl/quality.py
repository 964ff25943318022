"""How close a reconstruction is to its original: PSNR and MS-SSIM, as rates are reported beside them (paper, section
4).

Reported figures are of what a file shows: clipped and rounded to 8 bits. MS-SSIM is averaged over images before it is
turned into decibels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_SIDE = 176
"""Smallest side in pixels for which MS-SSIM exists: an 11-pixel window must fit the fifth scale, a sixteenth."""


def to_uint8(x_hat: Tensor) -> Tensor:
    """Reconstruction, about [0, 1] -> what a file shows: clipped, scaled, rounded to uint8. Same shape."""
    return torch.round(x_hat.clamp(0, 1) * 255).to(torch.uint8)


def psnr(original: Tensor, shown: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of two uint8 images of one shape; infinite where they are equal."""
    mse = (original.float() - shown.float()).square().mean()
    return 10 * torch.log10(255**2 / mse)


def ms_ssim(x_hat: Tensor, x: Tensor, per_image: bool = False) -> Tensor:
    """Multi-scale structural similarity of images (B, 3, H, W) in [0, 1] (Wang et al. 2003): the mean over the batch,
    or that of each image, (B,).

    Negative contrast terms, which a fractional power would turn into NaN, count as zero.

    Raises:
        ValueError: a side shorter than `MIN_SIDE`.
    """
    # Imported here: torchmetrics takes a second, and a decoder does without it.
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    # Without autocast: variances are E[x^2] - E[x]^2, a difference that bfloat16 convolutions would drown.
    with torch.autocast(x.device.type, enabled=False):
        value = multiscale_structural_similarity_index_measure(
            x_hat, x, data_range=1.0, normalize="relu", reduction="none" if per_image else "elementwise_mean"
        )
    assert isinstance(value, Tensor)
    return value


def ms_ssim_8bit(original: Tensor, shown: Tensor) -> Tensor | None:
    """MS-SSIM of two uint8 images (1, 3, H, W); None if a side is shorter than `MIN_SIDE`."""
    if min(original.shape[-2:]) < MIN_SIDE:
        return None
    return ms_ssim(shown.float() / 255, original.float() / 255)


def decibels(similarity: float) -> float:
    """MS-SSIM from 0 to 1 on the scale of figures, -10 log10(1 - s); infinite at 1, NaN of NaN."""
    return math.inf if similarity >= 1 else -10 * math.log10(1 - similarity)
