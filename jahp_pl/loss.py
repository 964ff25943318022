"""Computes the training objective R + lmbda * D and its terms, each with its unit."""

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
    """Terms of the objective, as scalar means over the batch; `loss` is the one to differentiate."""

    loss: Tensor
    """bpp + lmbda * distortion; bpp alone if nothing was reconstructed."""
    bpp: Tensor
    """R: bits per pixel of y and z together; an upper bound in training mode, the cross-entropy in evaluation mode."""
    bpp_y: Tensor
    """Bits per pixel of the latents."""
    bpp_z: Tensor
    """Bits per pixel of the side information."""
    distortion: Tensor
    """D: 255^2 * MSE, or 1 - MS-SSIM; NaN if nothing was reconstructed."""
    decibels: Tensor
    """PSNR of the unrounded reconstruction for mse, -10 log10(1 - MS-SSIM) for ms_ssim; NaN if nothing was
    reconstructed."""


def rate_distortion(
    config: LossConfig, x: Tensor, output: ModelOutput, level_share: Tensor | None = None
) -> RateDistortion:
    """Evaluate the objective (paper, equation 3, with D scaled to 8-bit intensities).

    Args:
        config: distortion measure and lambda.
        x: (B, 3, H, W) originals in [0, 1].
        output: the model's output for x.
        level_share: (B,) place of each image's level between the lowest (0) and the highest (1), which determines the
            image's lambda and weight (see `LossConfig.level_weighting`); None for a single-rate model.
    """
    if level_share is not None:
        return _over_levels(config, x, output, level_share)
    num_pixels = x.shape[0] * x.shape[-2] * x.shape[-1]
    bpp_y, bpp_z = output.bits_y.sum() / num_pixels, output.bits_z.sum() / num_pixels
    bpp = bpp_y + bpp_z
    if not output.x_hat.numel():
        unknown = torch.full_like(bpp, math.nan)
        return RateDistortion(bpp, bpp, bpp_y, bpp_z, unknown, unknown)
    if config.distortion == "mse":
        mse = F.mse_loss(output.x_hat, x)
        distortion, decibels = 255**2 * mse, -10 * torch.log10(mse.detach())  # PSNR with peak 1
    else:
        distortion = 1 - ms_ssim(output.x_hat, x)
        decibels = -10 * torch.log10(distortion.detach())
    # R + lambda D (paper, equation 3).
    return RateDistortion(bpp + config.lmbda * distortion, bpp, bpp_y, bpp_z, distortion, decibels)


def _over_levels(config: LossConfig, x: Tensor, output: ModelOutput, level_share: Tensor) -> RateDistortion:
    """Evaluate mean_b w_b (R_b + lambda_b D_b), lambda_b geometric in the level, w_b = (lambda_middle / lambda_b)^p."""
    num_pixels = x.shape[-2] * x.shape[-1]
    bits_y, bits_z = (bits.flatten(1).sum(1) / num_pixels for bits in (output.bits_y, output.bits_z))  # (B,)
    lmbda = config.lmbda * config.lmbda_ratio**level_share  # (B,)
    weight = (config.lmbda_middle / lmbda) ** config.level_weighting
    rate = bits_y + bits_z
    bpp_y, bpp_z, bpp = bits_y.mean(), bits_z.mean(), rate.mean()
    if not output.x_hat.numel():
        unknown = torch.full_like(bpp, math.nan)
        return RateDistortion((weight * rate).mean(), bpp, bpp_y, bpp_z, unknown, unknown)
    if config.distortion == "mse":
        mse = (output.x_hat - x).square().flatten(1).mean(1)
        distortion, decibels = 255**2 * mse, -10 * torch.log10(mse.detach()).mean()
    else:
        distortion = 1 - ms_ssim(output.x_hat, x, per_image=True)
        decibels = -10 * torch.log10(distortion.detach()).mean()
    loss = (weight * (rate + lmbda * distortion)).mean()  # mean over images b
    return RateDistortion(loss, bpp, bpp_y, bpp_z, distortion.mean(), decibels)
