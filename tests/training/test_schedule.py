"""The learning rate of each step."""

from __future__ import annotations

import itertools

import pytest

from jahp_pl.config import OptimConfig
from jahp_pl.training.schedule import learning_rate


def test_the_warm_up_is_linear_and_its_last_step_has_the_peak() -> None:
    config = OptimConfig(learning_rate=1e-3, warmup_steps=10)
    rates = [learning_rate(config, step, 100) for step in range(12)]
    assert rates[:10] == pytest.approx([1e-4 * (step + 1) for step in range(10)])
    assert rates[10:] == [1e-3, 1e-3]


def test_the_cosine_starts_at_the_peak_after_the_warm_up_and_ends_at_its_final_share() -> None:
    config = OptimConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=20, final_factor=0.05)
    rates = [learning_rate(config, step, 120) for step in range(20, 121)]
    assert rates[0] == 2e-3
    assert rates[50] == pytest.approx(2e-3 * (1 + 0.05) / 2)
    assert rates[-1] == pytest.approx(1e-4)
    assert all(a >= b for a, b in itertools.pairwise(rates))


def test_a_run_that_time_will_end_anneals_with_the_time() -> None:
    config = OptimConfig(learning_rate=1e-3, schedule="cosine", final_factor=0.0)
    assert learning_rate(config, 10, 1_000_000, time_share=1.0) == pytest.approx(0, abs=1e-12)
    assert learning_rate(config, 10, 1_000_000, time_share=0.5) == pytest.approx(5e-4, rel=1e-3)
    assert learning_rate(config, 900, 1000, time_share=0.1) == learning_rate(config, 900, 1000)
