"""Exponential moving average of the weights: smoother than any single step's, so better to validate and code with."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Model = TypeVar("Model", bound=nn.Module)


def make_average(model: Model) -> Model:
    """A frozen copy of `model` in evaluation mode, the start of its average."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def decay_at(step: int, decay: float) -> float:
    """Decay after so many steps: min(decay, (1 + step) / (10 + step)), so that the random start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, over all parameters at once, without synchronisation."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update(list(average.parameters()), list(model.parameters()), 0)
