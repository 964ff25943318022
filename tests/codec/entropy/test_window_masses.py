"""The masses of a window fit the density, and leave no symbol impossible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jahp_pl.codec.entropy.range_coder import MASS_BITS
from jahp_pl.codec.entropy.window_tables import ESCAPE_BITS, WIDTHS
from jahp_pl.config import DensityName
from jahp_pl.density_layout import BOUNDS
from jahp_pl.distributions import mixture_log_mass
from tests.support.codec_models import FAMILIES
from tests.support.latent_tables import M, cumulatives, probabilities, random_raw, raw_of, tables_of


def difference(row: Tensor, resolution: int, mean: int, value: int) -> int:
    """Compute G((2v + 1) 2^(r - 1) - mu') - G((2v - 1) 2^(r - 1) - mu') in Python integers."""
    extent = len(row) // 2

    def at(d: int) -> int:
        return int(row[extent + max(-extent, min(extent, d))])

    half = 2 ** (resolution - 1)
    return at((2 * value + 1) * half - mean) - at((2 * value - 1) * half - mean)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 3])
def test_masses_are_the_differences_of_the_cumulative_to_the_step(family: DensityName, num_components: int) -> None:
    tables, K = tables_of(family, num_components), num_components
    rows = cumulatives(tables)
    raw = random_raw(25, K)
    raw[3, K * M : 2 * K * M] = 2.0**24  # means at both ends
    raw[4, K * M : 2 * K * M] = -(2.0**24)
    windows = tables.windows(raw.numpy())
    scale = np.searchsorted(tables.thresholds, raw[:, : K * M].numpy()).reshape(25, K, M)
    blocks = raw.double().view(25, -1, K, M).tolist()
    for kind in range(len(WIDTHS)):
        chosen = (windows.kind == kind).nonzero()[0]
        if len(chosen) == 0:
            continue
        masses = tables.masses(windows, chosen, kind)
        for latent, found in list(zip(chosen.tolist(), masses.tolist(), strict=True))[:8]:
            position, channel = divmod(latent, M)
            total, expected = 0, [0] * (WIDTHS[kind] - 1)
            for k in range(K):
                s = int(scale[position, k, channel])
                sigma = float(tables.scales[s])
                resolution = next(r for r in range(1, 9) if r == 8 or 2.0**r >= 32 / sigma)
                mean = round(blocks[position][1][k][channel] * 2.0 ** (resolution - 12))
                weight = 1
                if K > 1:
                    logits = [blocks[position][2][j][channel] for j in range(K)]
                    weight = int(tables.exponential[min(round((max(logits) - logits[k]) / 64), 1024)])
                total += weight * 2**MASS_BITS
                lowest = int(windows.lowest[latent])
                step = max(1, len(expected) // 40)  # only some entries of wide windows
                for index in range(0, len(expected), step):
                    expected[index] += weight * difference(rows[s], resolution, mean, lowest + index)
            assert found[:-1:step] == expected[::step]
            assert found[-1] == max(total - sum(found[:-1]), total / 2**ESCAPE_BITS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 16])
def test_masses_are_integers_that_doubles_represent(family: DensityName, num_components: int) -> None:
    tables = tables_of(family, num_components)
    raw = torch.randint(-(2**24), 2**24 + 1, (20, (3 if num_components > 1 else 2) * num_components * M)).float()
    windows = tables.windows(raw.numpy())
    for kind in set(windows.kind.tolist()):
        masses = tables.masses(windows, (windows.kind == kind).nonzero()[0], kind)
        assert np.array_equal(masses, np.round(masses))
        assert masses.min() >= 0
        assert masses.sum(axis=1).max() < 2**53
        assert (masses[:, -1] >= masses.sum(axis=1) * 2.0 ** -(ESCAPE_BITS + 1)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_of_equal_components_is_its_component(family: DensityName) -> None:
    one, three = tables_of(family, 1), tables_of(family, 3)
    raw = random_raw(60, 1)
    sigma, mu = raw.view(60, 2, 1, M).unbind(1)
    mixed = torch.stack([sigma.expand(-1, 3, -1), mu.expand(-1, 3, -1), torch.zeros(60, 3, M)], dim=1).flatten(1)
    first, second = one.windows(raw.numpy()), three.windows(mixed.numpy())
    assert np.array_equal(first.kind, second.kind)
    assert np.array_equal(first.lowest, second.lowest)
    for kind in set(first.kind.tolist()):
        chosen = (first.kind == kind).nonzero()[0]
        assert np.array_equal(3 * 2**16 * one.masses(first, chosen, kind), three.masses(second, chosen, kind))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 3])
def test_coding_costs_at_most_three_ten_thousandths_more_than_the_density(
    family: DensityName, num_components: int
) -> None:
    """The expected cost under the float density, over all scales, includes 128 scales, rounded means and weights, and
    escapes, each of which is followed by an integer out of 501.
    """
    tables = tables_of(family, num_components)
    P, K = 400, num_components
    sigma = torch.exp(torch.empty(P, K, M).uniform_(math.log(BOUNDS[family].scale_min), math.log(30)))
    mu = torch.empty(P, K, M).uniform_(-20, 20)
    logits = 3 * torch.randn(P, K, M)
    values = torch.arange(-250, 251)
    # (P, M, symbols): log mass of every symbol, for the expected price.
    log_mass = mixture_log_mass(
        family,
        values.double().view(1, 1, -1),
        *(t.double().unsqueeze(-1) for t in (mu, sigma, torch.log_softmax(logits, dim=1))),
    ).view(P * M, -1)
    best = paid = 0.0
    chances = probabilities(tables, tables.windows(raw_of(mu, sigma, logits if K > 1 else None).numpy()))
    for row, chance in zip(log_mass.tolist(), chances, strict=True):
        for value, log_p in zip(values.tolist(), row, strict=True):
            p = math.exp(log_p)
            best -= p * log_p / math.log(2)
            q = chance[value if value in chance else None]
            q = q * (1 - len(chance) * 2.0**-MASS_BITS) + 2.0**-MASS_BITS
            paid -= p * math.log2(q if value in chance else q / len(values))
    assert 0 < paid / best - 1 < 3e-4
