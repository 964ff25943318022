"""The training objective R + lmbda * D, every term with its unit."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.config import LossConfig
from jahp_pl.model import ModelOutput
from jahp_pl.quality import ms_ssim


class RateDistortion(NamedTuple):
    """Scalars, means over the batch; `loss` is the one to differentiate."""

    loss: Tensor
    """bpp + lmbda * distortion; bpp alone where nothing was reconstructed."""
    bpp: Tensor
    """R: bits per pixel of y and z together. An upper bound in training, the cross-entropy in evaluation."""
    bpp_y: Tensor
    """Share of the latents."""
    bpp_z: Tensor
    """Share of the side information."""
    distortion: Tensor
    """D: 255^2 * MSE, or 1 - MS-SSIM; NaN where nothing was reconstructed."""
    decibels: Tensor
    """PSNR of the unrounded reconstruction for mse; -10 log10(1 - MS-SSIM) for ms_ssim; NaN as above."""


def rate_distortion(config: LossConfig, x: Tensor, output: ModelOutput) -> RateDistortion:
    """Evaluate the objective (paper, equation 3 with D scaled to 8-bit intensities).

    Args:
        config: distortion measure and lambda.
        x: (B, 3, H, W) originals in [0, 1].
        output: what the model made of them.
    """
    num_pixels = x.shape[0] * x.shape[-2] * x.shape[-1]
    bpp_y, bpp_z = output.bits_y.sum() / num_pixels, output.bits_z.sum() / num_pixels
    bpp = bpp_y + bpp_z
    if not output.x_hat.numel():
        unknown = torch.full_like(bpp, math.nan)
        return RateDistortion(bpp, bpp, bpp_y, bpp_z, unknown, unknown)
    if config.distortion == "mse":
        mse = F.mse_loss(output.x_hat, x)
        distortion, decibels = 255**2 * mse, -10 * torch.log10(mse.detach())
    else:
        distortion = 1 - ms_ssim(output.x_hat, x)
        decibels = -10 * torch.log10(distortion.detach())
    return RateDistortion(bpp + config.lmbda * distortion, bpp, bpp_y, bpp_z, distortion, decibels)
