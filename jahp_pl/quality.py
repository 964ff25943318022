"""Reconstruction quality: PSNR and MS-SSIM, reported beside the rate (paper, section 4).

Reported figures describe what a file shows, i.e. images clipped and rounded to 8 bits. MS-SSIM is averaged over images
before it is converted to decibels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MS_SSIM_MIN_SIDE = 176
"""Shortest side in pixels for which MS-SSIM is defined: an 11-pixel window must fit the fifth scale, at 1/16."""


def to_uint8(x_hat: Tensor) -> Tensor:
    """Clip a reconstruction in about [0, 1], scale it and round it to uint8, as a file shows it; same shape."""
    return torch.round(x_hat.clamp(0, 1) * 255).to(torch.uint8)


def psnr(original: Tensor, shown: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio in dB of two uint8 images of equal shape; infinite if they are equal."""
    mse = (original.float() - shown.float()).square().mean()
    return 10 * torch.log10(255**2 / mse)  # 255 is the peak of 8-bit samples


def ms_ssim(x_hat: Tensor, x: Tensor, per_image: bool = False) -> Tensor:
    """Compute the multi-scale structural similarity of images (B, 3, H, W) in [0, 1] (Wang et al. 2003).

    Negative contrast terms, which a fractional power would turn into NaN, count as zero.

    Returns:
        The mean over the batch, or the value of each image, (B,), if `per_image`.

    Raises:
        ValueError: if a side is shorter than `MS_SSIM_MIN_SIDE`.
    """
    # Imported here: torchmetrics takes a second to import, and a decoder does not need it.
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    # Without autocast: variances are E[x^2] - E[x]^2, differences that bfloat16 cannot resolve.
    with torch.autocast(x.device.type, enabled=False):
        value = multiscale_structural_similarity_index_measure(
            x_hat, x, data_range=1.0, normalize="relu", reduction="none" if per_image else "elementwise_mean"
        )
    assert isinstance(value, Tensor)
    return value


def ms_ssim_8bit(original: Tensor, shown: Tensor) -> Tensor | None:
    """Compute MS-SSIM of two uint8 images (1, 3, H, W); None if a side is shorter than `MS_SSIM_MIN_SIDE`."""
    if min(original.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return None
    return ms_ssim(shown.float() / 255, original.float() / 255)


class Quality(NamedTuple):
    """Quality of one reconstruction, RGB, 8 bits."""

    psnr: float
    """dB; infinite if it equals the original."""
    ms_ssim: float | None
    """From 0 to 1; None if a side is shorter than `MS_SSIM_MIN_SIDE`."""


def compare_images(original: Tensor, shown: Tensor) -> Quality:
    """Measure the quality of a reconstruction; both images are (3, H, W) uint8."""
    original, shown = original[None], shown[None]
    similarity = ms_ssim_8bit(original, shown)
    return Quality(float(psnr(original, shown)), None if similarity is None else float(similarity))


def compare_arrays(original: npt.NDArray[np.uint8], shown: npt.NDArray[np.uint8]) -> Quality:
    """Measure the quality of a reconstruction; both images are (H, W, 3) uint8."""
    return compare_images(*(torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1) for rgb in (original, shown)))


def decibels(similarity: float) -> float:
    """Convert MS-SSIM in [0, 1] to decibels, -10 log10(1 - s); infinite at 1, NaN for NaN."""
    return math.inf if similarity >= 1 else -10 * math.log10(1 - similarity)
