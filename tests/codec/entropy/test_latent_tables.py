"""From raw parameters to windows and masses: they fit the densities and leave no symbol impossible."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from jahp_pl.codec.entropy.freezing import FreezeError
from jahp_pl.codec.entropy.latent_tables import LatentTables
from jahp_pl.codec.entropy.range_coder import MASS_BITS
from jahp_pl.codec.entropy.window_tables import (
    ESCAPE_BITS,
    LIGHTEST,
    NUM_SCALES,
    SCALE_BITS,
    SCALE_MAX,
    WIDTHS,
    Windows,
)
from jahp_pl.config import DensityName, EntropyModelName, ModelConfig
from jahp_pl.density_layout import BOUNDS
from jahp_pl.distributions import mixture_log_mass
from jahp_pl.entropy_model import ConditionalDensity
from tests.support.codec_models import FAMILIES

M = 4


def tables_of(family: DensityName, num_components: int, entropy_model: EntropyModelName = "joint") -> LatentTables:
    return LatentTables(ConditionalDensity(ModelConfig(entropy_model, 8, M, family, num_components)), M)


def raw_of(mu: Tensor | None, sigma: Tensor, logits: Tensor | None = None) -> Tensor:
    """Convert (P, K, M) each to rows of raw outputs in steps of 2^-12."""
    blocks = [block for block in (sigma, mu, logits) if block is not None]
    return torch.round(torch.stack(blocks, dim=1).double() * 4096).float().flatten(1)


def random_raw(count: int, num_components: int, spread: float = 20.0) -> Tensor:
    shape = (count, num_components, M)
    sigma = torch.exp(torch.empty(shape).uniform_(math.log(0.03), math.log(300)))
    logits = 3 * torch.randn(shape) if num_components > 1 else None
    return raw_of(torch.empty(shape).uniform_(-spread, spread), sigma, logits)


def probabilities(tables: LatentTables, windows: Windows) -> list[dict[int | None, float]]:
    """Map each integer of each latent's window to its probability, and None to the escape's."""
    found: list[dict[int | None, float]] = [{} for _ in windows.kind]
    for kind in range(len(WIDTHS)):
        chosen = (windows.kind == kind).nonzero()[0]
        if len(chosen) == 0:
            continue
        masses = tables.masses(windows, chosen, kind)
        assert masses.shape == (len(chosen), WIDTHS[kind])
        for latent, row in zip(chosen, masses / masses.sum(axis=1, keepdims=True), strict=True):
            lowest = int(windows.lowest[latent])
            found[latent] = {lowest + k: float(p) for k, p in enumerate(row[:-1])}
            found[latent][None] = float(row[-1])
    return found


# --- tables that are the same for every model -------------------------------------------------------------------------


def true_scales(family: DensityName, offset: float = 0.0) -> list[Decimal]:
    """Return scales from SCALE_MIN to the family's SCALE_MAX in equal ratios, to fifty digits."""
    with localcontext() as context:
        context.prec = 50
        first = Decimal(str(BOUNDS[family].scale_min)).ln()
        ratio = (Decimal(int(SCALE_MAX)).ln() - first) / (NUM_SCALES - 1)
        return [(first + ratio * (i + Decimal(offset))).exp() for i in range(NUM_SCALES)]


@pytest.mark.parametrize("family", FAMILIES)
def test_scales_thresholds_and_exponential_are_the_correctly_rounded_ones(family: DensityName) -> None:
    tables = tables_of(family, 2)
    scales = [int((s * 2**SCALE_BITS).to_integral_value()) for s in true_scales(family)]
    assert (tables.scales * 2.0**SCALE_BITS).tolist() == scales
    between = [int((s * 4096).to_integral_value()) for s in true_scales(family, 0.5)[:-1]]
    assert tables.thresholds.tolist() == between
    with localcontext() as context:
        context.prec = 50
        steps = [int(((-Decimal(i) / 64).exp() * 2**16).to_integral_value()) for i in range(16 * 64 + 1)]
    assert tables.exponential.tolist() == steps


DIGESTS = {
    "gaussian": "7d55bc093a20622136d3e754e9961edeb744bbe880482ca6ab0f03751202e01d",
    "laplace": "4009d711386cadf06cb3fde89ccc45922812375a05da227687a2159c6669eea7",
    "logistic": "b308a25ef8ea8bb22313a4496f9e77236f4826a7bd614def00f95750c4ea3b70",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_of_every_family_are_pinned(family: DensityName) -> None:
    """If a digest changed, so would all fingerprints, and no earlier file would decode."""
    digest = hashlib.sha256()
    for table in tables_of(family, 2).arrays():
        digest.update(table.astype("<f8").tobytes())
    assert digest.hexdigest() == DIGESTS[family]


def cumulatives(tables: LatentTables) -> list[Tensor]:
    """Return one row per scale, with the sizes that the documentation gives."""
    rho = 5.5 if tables.density.family == "gaussian" else 18.0
    sizes = []
    for scale in tables.scales.tolist():
        resolution = next(r for r in range(1, 9) if r == 8 or 2.0**r >= 32 / scale)
        sizes.append(2 * math.ceil(rho * scale * 2**resolution) + 1)
    return list(torch.split(torch.from_numpy(tables.cumulative), sizes))


@pytest.mark.parametrize("family", FAMILIES)
def test_cumulatives_rise_from_nothing_to_everything_and_are_symmetric(family: DensityName) -> None:
    for row in cumulatives(tables_of(family, 2)):
        assert row[0] == 0
        assert row[len(row) // 2] == 2.0 ** (MASS_BITS - 1)
        assert row[-1] == 2.0**MASS_BITS
        assert bool((row.diff() >= 0).all())
        assert float((row + row.flip(0) - 2.0**MASS_BITS).abs().max()) <= 1, "a tie rounds to the even one"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reach_leaves_less_than_an_escape_outside(family: DensityName) -> None:
    outside = {
        "gaussian": math.erfc(BOUNDS[family].reach / math.sqrt(2)),
        "laplace": math.exp(-BOUNDS[family].reach),
        "logistic": 2 / (1 + math.exp(BOUNDS[family].reach)),
    }
    assert 2.0**-17 < outside[family] < 2.0 ** -(ESCAPE_BITS - 1)


# --- windows ----------------------------------------------------------------------------------------------------------


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
    assert math.exp(-9.0) * 2**16 < LIGHTEST
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


# --- masses -----------------------------------------------------------------------------------------------------------


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


# --- tables that were taken along -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scales", "thresholds", "cumulative", "exponential"])
def test_given_tables_are_used(name: str) -> None:
    tables = tables_of("laplace", 2)
    frozen = {key: value.clone() for key, value in tables.frozen_tensors().items()}
    frozen[name][7] += 2.0**-16 if name == "scales" else 1
    again = LatentTables(tables.density, M, frozen)
    assert torch.equal(again.frozen_tensors()[name], frozen[name])
    same = [np.array_equal(a, b) for a, b in zip(again.arrays(), tables.arrays(), strict=True)]
    assert same.count(False) == 1, "what determines probabilities is in the fingerprint"


@pytest.mark.parametrize("name", ["scales", "thresholds", "cumulative", "exponential"])
@pytest.mark.parametrize("fault", ["missing", "short", "long", "half", "nan", "negative"])
def test_invalid_tables_are_refused_by_name(name: str, fault: str) -> None:
    tables = tables_of("gaussian", 2)
    frozen = {key: value.clone() for key, value in tables.frozen_tensors().items()}
    if fault == "missing":
        del frozen[name]
    elif fault == "half":
        frozen[name] = frozen[name].float()
    elif fault in ("nan", "negative"):
        frozen[name][2] = math.nan if fault == "nan" else -1.0
    else:
        frozen[name] = frozen[name][:-1] if fault == "short" else torch.cat([frozen[name], frozen[name][-1:]])
    with pytest.raises(FreezeError, match=f"^table {name}: "):
        LatentTables(tables.density, M, frozen)


def test_scales_that_do_not_rise_are_refused() -> None:
    tables = tables_of("gaussian", 2)
    frozen = tables.frozen_tensors() | {"scales": torch.from_numpy(tables.scales).flip(0)}
    with pytest.raises(FreezeError, match=r"^table scales: does not rise"):
        LatentTables(tables.density, M, frozen)
