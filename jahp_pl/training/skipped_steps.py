"""Skips optimizer steps whose loss or gradient is not finite or too large, without waiting for the device.

A skipped step changes counters, but neither weights nor moments.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jahp_pl.config import OptimConfig
from jahp_pl.training import TrainingError


class ClippedGradient(NamedTuple):
    """Result of `clip_or_skip`; both are scalars on the device."""

    norm: Tensor
    """Global L2 norm before clipping."""
    skipped: Tensor
    """1.0 if the optimizer will skip the step, otherwise 0.0."""


def nan_unless_finite(loss: Tensor) -> Tensor:
    """Return a scalar loss with its gradient, or NaN if it is infinite.

    Every gradient is then NaN, on every rank after averaging, so the gradient norm alone tells all ranks whether to
    skip.
    """
    return loss * (1 + 0 * loss.detach())  # the factor is 1, or NaN if the loss is not finite


def clip_or_skip(optimizer: Optimizer, model: nn.Module, config: OptimConfig) -> ClippedGradient:
    """Clip the gradient to the norm `clip_norm`, and make `optimizer` skip the step if the norm is not finite or at
    least `skip_norm`."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if config.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), config.clip_norm, norm)
    skipped = (~(norm < (config.skip_norm or math.inf))).float()  # also 1 if the norm is NaN
    # found_inf is Adam's support for mixed-precision scaling: with found_inf = 1, a fused step writes nothing.
    optimizer.found_inf = skipped  # type: ignore[attr-defined]
    return ClippedGradient(norm, skipped)


class SkipCounter:
    """Counter of skipped steps that stays on the device: the total, the current streak and the longest streak."""

    def __init__(self) -> None:
        self._counts = torch.zeros(3)

    def to(self, device: torch.device, total: int) -> None:
        """Continue counting from `total` on another device; streaks start anew."""
        self._counts = torch.tensor([float(total), 0.0, 0.0], device=device)

    def add(self, skipped: Tensor) -> None:
        """Count one step.

        Args:
            skipped: scalar, 1.0 if the step was skipped, otherwise 0.0.
        """
        total, streak, longest = self._counts
        streak = (streak + 1) * skipped
        self._counts = torch.stack([total + skipped, streak, torch.maximum(longest, streak)])

    @property
    def total(self) -> int:
        """Number of skipped steps of the run. Waits for the device."""
        return int(self._counts[0])

    def check_streak(self, limit: int, step: int) -> None:
        """Refuse to continue after too many consecutive skipped steps of this session. Waits for the device.

        Args:
            limit: number of consecutive skipped steps that ends the run.
            step: current optimizer step, for the message.

        Raises:
            TrainingError: if that many were skipped in a row.
        """
        longest = int(self._counts[2])
        if longest >= limit:
            raise TrainingError(
                f"{longest} optimizer steps in a row had a non-finite loss or gradient; stopped after step "
                f"{step}; checkpoints saved before are intact. Try a lower optim.learning_rate or a longer "
                "optim.warmup_steps, or look for broken images"
            )
