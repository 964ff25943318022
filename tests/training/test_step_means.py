"""Means over steps leave out skipped ones, and restart when they are read."""

from __future__ import annotations

import math

import torch

from jahp_pl.training.step_means import RunningMeans, TrainingRow


def test_a_skipped_step_is_left_out_of_the_running_means() -> None:
    running = RunningMeans()
    running.update(torch.arange(7.0), torch.tensor(0.0))
    running.update(torch.full((7,), torch.nan), torch.tensor(1.0))
    running.update(torch.arange(7.0) + 2, torch.tensor(0.0))
    assert running.take() == TrainingRow(1, 2, 3, 4, 5, 6, 7)


def test_running_means_restart_after_they_are_read() -> None:
    running = RunningMeans()
    running.update(torch.ones(7), torch.tensor(0.0))
    running.take()
    running.update(torch.full((7,), 5.0), torch.tensor(0.0))
    assert running.take().loss == 5
    running.update(torch.full((7,), torch.inf), torch.tensor(1.0))
    assert math.isnan(running.take().loss)
