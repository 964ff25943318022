"""Averages the training metrics over optimizer steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class TrainingRow(NamedTuple):
    """Means over the optimizer steps since the last row, without skipped steps; rates in bits per pixel."""

    loss: float
    """bpp + lmbda * distortion; bpp alone if the transforms are frozen."""
    bpp: float
    """Rate of noisy latents y and z; on average an upper bound of the cross-entropy."""
    bpp_y: float
    """Rate of noisy y."""
    bpp_z: float
    """Rate of noisy z."""
    distortion: float
    """255^2 * MSE, or 1 - MS-SSIM; NaN if the transforms are frozen."""
    decibels: float
    """PSNR before rounding to 8 bits, or MS-SSIM, in dB, of the batch; NaN if the transforms are frozen."""
    grad_norm: float
    """Global L2 norm of the gradient before clipping."""


class RunningMeans:
    """Running means of the training terms, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def update(self, terms: Tensor, skipped: Tensor) -> None:
        """Add one step.

        Args:
            terms: (7,) in the order of `TrainingRow`.
            skipped: scalar, 1.0 if the step was skipped, otherwise 0.0.
        """
        weighted = torch.where(skipped > 0, torch.zeros_like(terms), terms)
        entry = torch.cat([weighted, 1 - skipped.view(1)])
        self.sums = entry if self.sums is None else self.sums + entry

    def take(self, num_ranks: int = 1) -> TrainingRow:
        """Return means over all ranks since the last call; NaN if all steps were skipped. All ranks must call it."""
        assert self.sums is not None
        if num_ranks > 1:
            torch.distributed.all_reduce(self.sums)
        *sums, count = self.sums.tolist()
        self.sums = None
        return TrainingRow._make(value / count if count else math.nan for value in sums)
