"""Averages the training metrics over optimizer steps, and names them for the log."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from jahp_pl.config import Config
from jahp_pl.data.module import ShardDataModule
from jahp_pl.training.metric_names import DISTORTION_NAMES


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


def training_values(
    means: TrainingRow, config: Config, *, learning_rate: float, seconds_per_step: float, skipped_steps: int
) -> dict[str, float]:
    """Return the values to log for the steps since the last logging, by name; docs/python.md explains them.

    Args:
        means: means over the steps.
        config: the whole experiment.
        learning_rate: learning rate of the last step.
        seconds_per_step: mean time of a step.
        skipped_steps: number of skipped steps of the run.
    """
    values = {
        "train/loss": means.loss,
        "train/bpp": means.bpp,
        "train/bpp_y": means.bpp_y,
        "train/bpp_z": means.bpp_z,
        "train/grad_norm": means.grad_norm,
        "train/learning_rate": learning_rate,
        "train/seconds_per_step": seconds_per_step,
        "train/skipped_steps": skipped_steps,
    }
    if config.optim.transforms_learn:
        distortion, decibels = DISTORTION_NAMES[config.loss.distortion]
        values |= {f"train/{distortion}": means.distortion, f"train/{decibels}": means.decibels}
    return values


def data_values(trainer: Trainer) -> dict[str, float]:
    """Return the counts of skipped photographs to log, by name; empty for a loader other than `ShardDataModule`."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ShardDataModule):
        return {}
    return {
        "data/broken_photographs": data.train_skipped.num_broken,
        "data/small_photographs": data.train_skipped.num_small,
    }
