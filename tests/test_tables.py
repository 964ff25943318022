"""From raw parameters to probabilities: the tables fit the densities and leave nothing impossible."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from codec_models import ALL, FAMILIES, codec_of, model_of
from torch import Tensor

from jahp_pl.codec.coder import Located, Reader, Tabulated, Writer
from jahp_pl.codec.tables import (
    MASS_BITS,
    MAX_CELLS,
    NUM_SCALES,
    SCALE_BITS,
    SCALE_MAX,
    TABLE_MARGIN,
    LatentTables,
    PriorTables,
    exact_bits,
)
from jahp_pl.config import Family, ModelConfig
from jahp_pl.distributions import mixture_log_mass
from jahp_pl.entropy_model import SCALE_MIN, ConditionalDensity, FactorizedDensity

M = 4


def tables_of(family: Family, num_components: int) -> LatentTables:
    return LatentTables(ConditionalDensity(ModelConfig("joint", 8, M, family, num_components)), M)


def raw_of(mu: Tensor, sigma: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """(P, K, M) each -> rows of raw outputs in steps of 2^-12."""
    blocks = [sigma, mu] + ([] if log_weights is None else [log_weights])
    return torch.round(torch.stack(blocks, dim=1).double() * 4096).flatten(1)


# --- tables that are the same for every model -----------------------------------------------------------------------


def true_scales(family: Family, offset: float = 0.0) -> list[Decimal]:
    """The family's SCALE_MIN to SCALE_MAX in equal ratios, to fifty digits."""
    with localcontext() as context:
        context.prec = 50
        first = Decimal(str(SCALE_MIN[family])).ln()
        ratio = (Decimal(int(SCALE_MAX)).ln() - first) / (NUM_SCALES - 1)
        return [(first + ratio * (i + Decimal(offset))).exp() for i in range(NUM_SCALES)]


def test_scales_thresholds_and_exponential_are_the_correctly_rounded_ones() -> None:
    tables = tables_of("laplace", 2)
    scales = [int((s * 2**SCALE_BITS).to_integral_value()) for s in true_scales("laplace")]
    assert (tables.scales * 2.0**SCALE_BITS).tolist() == scales
    between = [int((s * 4096).to_integral_value()) for s in true_scales("laplace", 0.5)[:-1]]
    assert tables.thresholds.tolist() == between
    with localcontext() as context:
        context.prec = 50
        steps = [int(((-Decimal(i) / 64).exp() * 2**16).to_integral_value()) for i in range(16 * 64 + 1)]
    assert tables.exponential.tolist() == steps


DIGESTS = {
    "gaussian": "9f8798b067c6e2f0a1bcfd8417b776290a94f126ad0267d0d1dfa375dfb3b99d",
    "laplace": "22c9b4fd6bd3641520e5ddf35d90eaef120b49bacd29c1831e5c733b874f94e0",
    "logistic": "6166f6f3056b7d862008e3e2c943b11cdcf8518a1b7e06ef50828e9380ec2793",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_of_every_family_are_pinned(family: Family) -> None:
    """Another digest means other fingerprints: no earlier file would decode."""
    digest = hashlib.sha256()
    for tensor in tables_of(family, 2).tensors():
        digest.update(tensor.double().numpy().astype("<f8").tobytes())
    assert digest.hexdigest() == DIGESTS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_cumulatives_rise_from_nothing_to_everything(family: Family) -> None:
    tables = tables_of(family, 2)
    for start, half in zip(tables.start.tolist(), tables.half.tolist(), strict=True):
        row = tables.cumulative[start : start + 2 * half + 1]
        assert row[0] == 0
        assert row[half] == 2.0 ** (MASS_BITS - 1)
        assert row[-1] == 2.0**MASS_BITS
        assert bool((row.diff() >= 0).all())


# --- p(y_hat | parameters) ------------------------------------------------------------------------------------------


def test_the_nearest_scale_by_ratio_is_taken() -> None:
    tables = tables_of("gaussian", 1)
    sigma = torch.exp(torch.empty(500, 1, M).uniform_(math.log(0.05), math.log(400)))
    model = tables.models(raw_of(torch.zeros_like(sigma), sigma), -5, 5)
    assert isinstance(model, Located)
    ratio = np.log(model.sigma / np.clip(sigma.flatten().numpy(), SCALE_MIN["gaussian"], SCALE_MAX))
    assert np.abs(ratio).max() < math.log(SCALE_MAX / SCALE_MIN["gaussian"]) / (NUM_SCALES - 1) / 2 + 1e-3


def test_a_located_mean_keeps_all_its_bits() -> None:
    tables = tables_of("gaussian", 1)
    mu = torch.randint(-(2**24), 2**24 + 1, (50, 1, M)) / 4096
    model = tables.models(raw_of(mu, torch.ones_like(mu)), -5, 5)
    assert isinstance(model, Located)
    assert np.array_equal(model.mu, mu.flatten().numpy())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 3])
def test_coding_costs_no_more_than_two_thousandths_over_the_density(family: Family, num_components: int) -> None:
    """Symbols drawn from the float density, over all scales: the price of 64 scales, rounded means and weights."""
    tables = tables_of(family, num_components)
    P, K = 400, num_components
    sigma = torch.exp(torch.empty(P, K, M).uniform_(math.log(0.11), math.log(30)))
    mu = torch.empty(P, K, M).uniform_(-20, 20)
    logits = 3 * torch.randn(P, K, M)
    log_weights = torch.log_softmax(logits, dim=1)
    values = torch.arange(-250, 251)
    # (P, 1, M, symbols) -> log mass of every symbol, for drawing from and for the price.
    spread = mixture_log_mass(
        family, values.double().view(1, 1, -1), *(t.double().unsqueeze(-1) for t in (mu, sigma, log_weights))
    )
    chosen = torch.multinomial(spread.exp().flatten(0, 1), 1).flatten()
    best = float(-spread.flatten(0, 1)[torch.arange(P * M), chosen].sum()) / math.log(2)
    model = tables.models(raw_of(mu, sigma, logits if K > 1 else None), -250, 250)
    bits = exact_bits(values[chosen].to(torch.int32).numpy(), model)
    assert bits / best - 1 < 2e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 3])
@pytest.mark.parametrize("centre", [-4096.0, 4096.0, 0.0])
def test_symbols_far_from_all_mass_can_be_coded(family: Family, num_components: int, centre: float) -> None:
    tables = tables_of(family, num_components)
    mu = torch.full((6, num_components, M), centre)
    sigma = torch.full_like(mu, 0.11)
    logits = torch.zeros_like(mu) if num_components > 1 else None
    for lowest, highest in [(-30, 30), (500, 540), (7, 7)]:
        model = tables.models(raw_of(mu, sigma, logits), lowest, highest)
        symbols = torch.randint(lowest, highest + 1, (6 * M,), dtype=torch.int32).numpy()
        writer = Writer()
        writer.write(symbols, model)
        assert np.array_equal(Reader(writer.payload()).read(model), symbols)
        assert exact_bits(symbols, model) <= MASS_BITS * symbols.size


@pytest.mark.parametrize("family", FAMILIES)
def test_masses_are_integers_that_double_holds(family: Family) -> None:
    tables = tables_of(family, 16)
    raw = torch.randint(-(2**24), 2**24 + 1, (20, 3 * 16 * M)).double()
    model = tables.models(raw, -40, 40)
    assert isinstance(model, Tabulated)
    assert model.masses.shape == (20 * M, 81)
    assert np.array_equal(model.masses, np.round(model.masses))
    assert model.masses.min() >= 1
    assert model.masses.sum(axis=1).max() < 2**53


def test_tables_held_at_a_time_are_bounded() -> None:
    tables = tables_of("laplace", 3)
    for span in (1, 60, 5000):
        assert tables.chunk(-span, span) * (2 * span + 1) * 3 * M <= MAX_CELLS
    assert tables_of("laplace", 1).chunk(-5000, 5000) > 100_000, "no tables, no bound"


# --- the factorized density -----------------------------------------------------------------------------------------

WITH_PRIOR = [v for v in ALL if v.rung != "context"][::6]


@pytest.mark.parametrize("variant", WITH_PRIOR, ids=str)
def test_factorized_tables_cost_what_the_density_says(variant: object) -> None:
    prior, tables = model_of(variant).prior, codec_of(variant).prior  # type: ignore[arg-type]
    assert prior is not None
    assert tables is not None
    for channel, (low, masses) in enumerate(zip(tables.lowest, tables.masses, strict=True)):
        assert float(masses.sum()) >= 2.0**MASS_BITS
        assert float(masses[-1]) < 2.0 ** (MASS_BITS - 15), "hardly anything escapes"
        symbols = torch.arange(low + TABLE_MARGIN, low + len(masses) - 1 - TABLE_MARGIN).float()
        grid = torch.zeros(1, prior.num_channels, 1, len(symbols))
        grid[0, channel, 0] = symbols
        with torch.no_grad():
            bits = prior.bits(grid)[0, channel, 0]
        mass = masses[TABLE_MARGIN : len(masses) - 1 - TABLE_MARGIN]
        likely = mass > 1000
        assert bool(likely.any())
        assert float((-torch.log2(mass / 2.0**MASS_BITS) - bits)[likely].abs().max()) < 2e-3


def test_any_symbol_survives_the_factorized_tables_and_is_paid_for() -> None:
    tables = codec_of(WITH_PRIOR[0]).prior
    assert tables is not None
    channels = len(tables.lowest)
    ends = torch.tensor([-(2**31), 2**31 - 1, -32768, 32767, tables.lowest[0] - 1, tables.lowest[0]])
    symbols = torch.cat([ends, torch.randint(-9, 10, (194,))]).to(torch.int32).expand(channels, -1).reshape(-1, 10, 20)
    writer = Writer()
    bits = tables.write(writer, symbols)
    reader = Reader(writer.payload())
    assert torch.equal(tables.read(reader, 10, 20), symbols)
    reader.finish()
    assert abs(8 * len(writer.payload()) - bits) < 64 + 1e-3 * bits


@pytest.mark.parametrize("shift", [0.0, 1e3, -1e5])
@pytest.mark.parametrize("width", [1e-4, 1.0, 1e5])
def test_a_density_of_any_place_and_width_freezes(shift: float, width: float) -> None:
    prior = FactorizedDensity(3, init_scale=width)
    with torch.no_grad():
        prior.biases[-1].add_(shift)
    tables = PriorTables(prior)
    symbols = torch.randint(-40, 41, (3, 4, 4), dtype=torch.int32)
    writer = Writer()
    tables.write(writer, symbols)
    assert torch.equal(tables.read(Reader(writer.payload()), 4, 4), symbols)
    assert max(len(m) for m in tables.masses) <= 2 * (2**12 + TABLE_MARGIN) + 2
