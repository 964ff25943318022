"""The rate levels of the crops of a batch."""

from __future__ import annotations

import torch

from jahp_pl.training.levels import draw_level_shares


def test_levels_of_a_batch_are_spread_over_all() -> None:
    shares = draw_level_shares(8, torch.device("cpu"))
    assert torch.equal((shares * 8).floor(), torch.arange(8.0))
