"""A latent's window lies around its mean and is the narrowest that holds what its components reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jahp_pl.codec.entropy.window_tables import MIN_WIDENING_WEIGHT, NUM_SCALES, SCALE_MAX, WIDTHS
from jahp_pl.config import DensityName
from jahp_pl.density_layout import BOUNDS
from tests.support.codec_models import FAMILIES
from tests.support.latent_tables import M, probabilities, random_raw, raw_of, tables_of


def test_the_nearest_scale_by_ratio_is_taken() -> None:
    tables = tables_of("gaussian", 2)
    sigma = torch.exp(torch.empty(500, 2, M).uniform_(math.log(0.05), math.log(400)))
    windows = tables.windows(raw_of(torch.zeros_like(sigma), sigma, torch.zeros_like(sigma)).numpy())
    found = tables.scales[windows.source[2]]  # (K, P M)
    smallest = BOUNDS["gaussian"].scale_min
    wanted = np.clip(sigma.transpose(0, 1).reshape(2, -1).numpy(), smallest, SCALE_MAX)
    assert np.abs(np.log(found / wanted)).max() < math.log(SCALE_MAX / smallest) / (NUM_SCALES - 1) / 2 + 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 3])
def test_the_narrowest_window_that_holds_the_reach_is_taken_around_the_mean(
    family: DensityName, num_components: int
) -> None:
    tables = tables_of(family, num_components)
    scales = torch.from_numpy(tables.scales).float()
    for mean in (-4096.0, -77.3, -0.5, 0.0, 0.25, 0.5, 4096.0):
        sigma = scales[:, None, None].expand(-1, num_components, M)
        logits = torch.zeros_like(sigma) if num_components > 1 else None
        windows = tables.windows(raw_of(torch.full_like(sigma, mean), sigma, logits).numpy())
        for i, scale in enumerate(tables.scales.tolist()):
            kind, lowest = int(windows.kind[i * M]), int(windows.lowest[i * M])
            half = WIDTHS[kind] // 2 - 1
            reach = math.ceil(BOUNDS[family].reach * scale)
            assert half >= reach or kind == len(WIDTHS) - 1
            assert kind == 0 or WIDTHS[kind - 1] // 2 - 1 < reach
            assert abs(lowest + half - mean) <= 0.5
            assert lowest + half == math.floor(mean + 0.5)


def test_all_kinds_of_windows_occur() -> None:
    for family in FAMILIES:
        windows = tables_of(family, 1).windows(random_raw(400, 1).numpy())
        assert set(windows.kind.tolist()) == set(range(len(WIDTHS)))


def test_without_means_windows_lie_around_zero() -> None:
    for num_components in (1, 3):
        tables = tables_of("laplace", num_components, "scale_hyperprior")
        sigma = torch.exp(torch.randn(50, num_components, M))
        windows = tables.windows(raw_of(None, sigma, torch.randn_like(sigma) if num_components > 1 else None).numpy())
        halves = np.array(WIDTHS)[windows.kind] // 2 - 1
        assert np.array_equal(windows.lowest, -halves)


def test_a_window_spans_all_components_but_the_lightest() -> None:
    tables = tables_of("gaussian", 3)
    mu = torch.tensor([-20.0, 0.0, 30.0]).view(1, 3, 1).expand(1, 3, M)
    sigma = torch.ones(1, 3, M)
    windows = tables.windows(raw_of(mu, sigma, torch.zeros(1, 3, M)).numpy())
    reach = math.ceil(4.2)
    assert windows.lowest[0] <= -20 - reach
    assert windows.lowest[0] + WIDTHS[windows.kind[0]] - 2 >= 30 + reach + 1
    light = torch.tensor([0.0, 0.0, -9.0]).view(1, 3, 1).expand(1, 3, M)
    assert math.exp(-9.0) * 2**16 < MIN_WIDENING_WEIGHT
    narrower = tables.windows(raw_of(mu, sigma, light).numpy())
    assert narrower.kind[0] == windows.kind[0] - 1
    assert narrower.lowest[0] + WIDTHS[narrower.kind[0]] // 2 - 1 == -10
    mass = probabilities(tables, narrower)[0]
    assert mass[None] == pytest.approx(math.exp(-9.0) / 2, rel=0.05), "it still counts"


@pytest.mark.parametrize("distance", [500, 4096])
def test_components_far_apart_leave_what_the_window_cannot_hold_to_the_escape(distance: int) -> None:
    tables = tables_of("gaussian", 2)
    mu = torch.tensor([-1.0, 1.0]).mul(distance).view(1, 2, 1).expand(1, 2, M)
    mass = probabilities(tables, tables.windows(raw_of(mu, torch.ones(1, 2, M), torch.zeros(1, 2, M)).numpy()))[0]
    assert sum(mass.values()) == pytest.approx(1)
    if distance == 500:
        assert mass[500] == mass[-500] == pytest.approx(0.5 * math.erf(0.5 / math.sqrt(2)), rel=0.02)
    else:
        assert mass[None] > 1 - 1e-4, "an escape costs next to nothing, and its integer what any costs"
