"""A cheap differentiable stand-in for 1 - MS-SSIM that can be summed over tiles, for the search for better latents.

MS-SSIM (Wang et al. 2003) compares contrast and structure in Gaussian windows around every pixel, at five scales. Here
the windows are boxes of 8 x 8 luma pixels that overlap by half, and the scales are summed instead of multiplied:

    D = sum_s w_s mean(1 - cs_s),   cs_s = (2 cov(x, x_hat) + C2) / (var(x) + var(x_hat) + C2),

where cs_s is the product of the contrast and structure terms of SSIM in a window; at the coarsest scale it is also
multiplied by the luminance term. Where all cs_s are near 1, 1 - D equals the product of their powers in MS-SSIM to
first order. D takes a tenth of the time of MS-SSIM itself (`quality.ms_ssim`), the measure in which results are
reported.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""w_s, from the finest scale to the coarsest (Wang et al. 2003)."""
C1, C2 = 0.01**2, 0.03**2
"""Stabilizing constants for intensities in [0, 1]."""
WINDOW = 8
"""Side of the windows in pixels of their scale; small images have smaller windows."""


class _Scale(NamedTuple):
    """The original at one scale."""

    luma: Tensor
    """(1, 1, h, w)."""
    mean: Tensor
    """(1, 1, rows, columns): mean of each window."""
    variance: Tensor
    """(1, 1, rows, columns): variance of each window."""


class StructuralDistortion:
    """Structural distortion D of reconstructions of one original, 0 for equal images, about 1 for unrelated ones.

    Args:
        x: (1, 3, H, W) original in [0, 1].
    """

    def __init__(self, x: Tensor) -> None:
        self._scales = []
        for luma in _pyramid(x):
            mean = _windows(luma)
            self._scales.append(_Scale(luma, mean, _windows(luma.square()) - mean.square()))

    def __call__(self, x_hat: Tensor) -> Tensor:
        """Compute D of a reconstruction (1, 3, H, W) in [0, 1]: a differentiable scalar."""
        total = x_hat.new_zeros(())
        for weight, scale, luma in zip(SCALE_WEIGHTS, self._scales, _pyramid(x_hat), strict=True):
            mean = _windows(luma)
            variance = _windows(luma.square()) - mean.square()
            covariance = _windows(luma * scale.luma) - mean * scale.mean
            # cs_s of each window
            similarity = (2 * covariance + C2) / (variance + scale.variance + C2)
            if scale is self._scales[-1]:  # luminance term
                similarity = similarity * (2 * mean * scale.mean + C1) / (mean.square() + scale.mean.square() + C1)
            total = total + weight * (1 - similarity).mean()
        return total


def _pyramid(x: Tensor) -> list[Tensor]:
    """Return the luma of an image at every scale: (1, 1, H, W), then halved repeatedly."""
    scales = [0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]]
    for _ in SCALE_WEIGHTS[1:]:
        scales.append(F.avg_pool2d(scales[-1], 2, ceil_mode=True))
    return scales


def _windows(values: Tensor) -> Tensor:
    """Average the values over each window."""
    sides = [min(WINDOW, side) for side in values.shape[-2:]]
    return F.avg_pool2d(values, sides, stride=[max(side // 2, 1) for side in sides])
