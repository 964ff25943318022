"""Exponential moving average (EMA) of the weights, which is validated, coded and exported in place of the weights."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Model = TypeVar("Model", bound=nn.Module)


def make_average(model: Model) -> Model:
    """Copy and freeze `model` in evaluation mode as the start of its average."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def decay_at(step: int, decay: float) -> float:
    """Compute the decay after `step` steps, min(decay, (1 + step) / (10 + step)); it is small at first, so that the
    average soon forgets the random initialization."""
    return min(decay, (1 + step) / (10 + step))


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Update all parameters, average <- decay * average + (1 - decay) * model, without waiting for the device."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update(list(average.parameters()), list(model.parameters()), 0)
