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


def rate_distortion(
    config: LossConfig, x: Tensor, output: ModelOutput, level_share: Tensor | None = None
) -> RateDistortion:
    """Evaluate the objective (paper, equation 3 with D scaled to 8-bit intensities).

    Args:
        config: distortion measure and lambda.
        x: (B, 3, H, W) originals in [0, 1].
        output: what the model made of them.
        level_share: (B,) level of each image, from 0 for the lowest to 1 for the highest; None for a model of one rate.
            Each image then has a lambda of its own, and a weight (see `LossConfig.level_weighting`).
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
        distortion, decibels = 255**2 * mse, -10 * torch.log10(mse.detach())
    else:
        distortion = 1 - ms_ssim(output.x_hat, x)
        decibels = -10 * torch.log10(distortion.detach())
    return RateDistortion(bpp + config.lmbda * distortion, bpp, bpp_y, bpp_z, distortion, decibels)


def _over_levels(config: LossConfig, x: Tensor, output: ModelOutput, level_share: Tensor) -> RateDistortion:
    """mean_b w_b (R_b + lambda_b D_b), with lambda_b geometric in the level and w_b = (lambda_middle / lambda_b)^p."""
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
    loss = (weight * (rate + lmbda * distortion)).mean()
    return RateDistortion(loss, bpp, bpp_y, bpp_z, distortion.mean(), decibels)
