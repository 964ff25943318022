"""The exponential moving average of the weights."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.training.weight_average import decay_at, make_average, update_average


def test_the_average_follows_its_formula() -> None:
    model = CompressionModel(ModelConfig(num_filters=4, num_latents=4))
    average = make_average(model)
    before = [p.clone() for p in average.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    update_average(average, model, 0.75)
    for old, new, current in zip(before, average.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * current)
        assert not new.requires_grad


def test_the_average_forgets_its_start_at_least_as_fast_as_configured() -> None:
    decays = [decay_at(step, 0.999) for step in range(1, 100_000, 37)]
    assert decays[0] == pytest.approx(2 / 11)
    assert decays == sorted(decays)
    assert decays[-1] == 0.999
