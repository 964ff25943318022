"""Rate levels at which a variable-rate model is trained and validated.

A level is given by its share of the highest one, from 0 (lowest rate) to 1. The model itself counts levels from 0 to
S - 1, see `config.ModelConfig.level_at`.
"""

from __future__ import annotations

import torch
from torch import Tensor

VALIDATED_LEVEL_SHARES = (0.0, 1 / 3, 2 / 3, 1.0)
"""Levels at which a variable-rate model is validated."""


def draw_level_shares(num_crops: int, device: torch.device) -> Tensor:
    """Draw the share of one level per crop, (B,).

    The draw is stratified: one level from each of B equal intervals. Each batch then covers low and high rates, which
    reduces the noise of the gradient. The levels are in ascending order; the crops are in random order anyway.
    """
    return (torch.arange(num_crops, device=device) + torch.rand(num_crops, device=device)) / num_crops


def level_section(level_share: float) -> str:
    """Return the prefix of one level's metrics, e.g. val_level033, see `level_name`."""
    return f"val_{level_name(level_share)}"


def level_name(level_share: float) -> str:
    """Return the name of a level in files and metrics, from level000 (share 0, lowest rate) to level100 (share 1)."""
    return f"level{round(100 * level_share):03}"
