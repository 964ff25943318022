"""The factorized density as tables: coding costs as much as the density says, and no symbol is impossible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jahp_pl.codec.entropy.channel_tables import TABLE_LIMIT
from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.codec.entropy.prior_tables import TABLE_MARGIN, PriorTables
from jahp_pl.codec.entropy.range_coder import MASS_BITS, Reader, Writer
from jahp_pl.entropy_model import FactorizedDensity
from tests.support.codec_models import ALL, Variant, codec_of, model_of

WITH_PRIOR = [v for v in ALL if v.entropy_model != "context"][::6]


def tables_of(variant: Variant) -> PriorTables:
    tables = codec_of(variant).prior
    assert tables is not None
    return tables


@pytest.mark.parametrize("variant", WITH_PRIOR, ids=str)
def test_tables_cost_as_much_as_the_density(variant: Variant) -> None:
    prior, tables = model_of(variant).prior, tables_of(variant)
    assert prior is not None
    for channel, table in enumerate(tables.tables):
        low, masses = table.lowest, torch.from_numpy(table.masses)
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


def test_every_symbol_round_trips_at_its_cost() -> None:
    tables = tables_of(WITH_PRIOR[0])
    channels = len(tables.tables)
    ends = torch.tensor([-(2**31), 2**31 - 1, -32768, 32767, tables.tables[0].lowest - 1, tables.tables[0].lowest])
    symbols = torch.cat([ends, torch.randint(-9, 10, (194,))]).to(torch.int32).expand(channels, -1).reshape(-1, 10, 20)
    writer = Writer(measure=True)
    tables.write(writer, symbols)
    reader = Reader(writer.payload())
    assert torch.equal(tables.read(reader, 10, 20), symbols)
    reader.finish()
    assert abs(8 * len(writer.payload()) - writer.bits) < 64 + 1e-3 * writer.bits


@pytest.mark.parametrize("shift", [0.0, 1e3, -1e5])
@pytest.mark.parametrize("width", [1e-4, 1.0, 1e5])
def test_a_density_of_any_location_and_width_has_tables(shift: float, width: float) -> None:
    prior = FactorizedDensity(3, init_scale=width)
    with torch.no_grad():
        prior.biases[-1].add_(shift)
    tables = PriorTables(prior)
    symbols = torch.randint(-40, 41, (3, 4, 4), dtype=torch.int32)
    writer = Writer()
    tables.write(writer, symbols)
    assert torch.equal(tables.read(Reader(writer.payload()), 4, 4), symbols)
    assert max(len(table.masses) for table in tables.tables) <= 2 * (TABLE_LIMIT + TABLE_MARGIN) + 2


def test_given_tables_are_used() -> None:
    prior, tables = model_of(WITH_PRIOR[0]).prior, tables_of(WITH_PRIOR[0])
    assert prior is not None
    for name in ("lowest", "masses"):
        stored = {key: value.copy() for key, value in tables.tables_to_store().items()}
        stored[name][5] += 1
        again = PriorTables(prior, stored)
        assert np.array_equal(again.tables_to_store()[name], stored[name])
        same = [
            np.array_equal(a, b) for a, b in zip(again.fingerprint_arrays(), tables.fingerprint_arrays(), strict=True)
        ]
        assert same.count(False) == 1, "what determines probabilities is in the fingerprint"
        symbols = torch.randint(-9, 10, (len(again.tables), 5, 8), dtype=torch.int32)
        writer, before = Writer(), Writer()
        again.write(writer, symbols)
        tables.write(before, symbols)
        assert torch.equal(again.read(Reader(writer.payload()), 5, 8), symbols)
        assert name == "masses" or writer.payload() != before.payload()


FAULTS = {
    "missing": ("masses", lambda t: None),
    "too short": ("masses", lambda t: t[:-1]),
    "float32": ("lowest", lambda t: t.astype(np.float32)),
    "not finite": ("masses", lambda t: np.where(np.arange(len(t)) == 3, math.nan, t)),
    "negative": ("masses", lambda t: t - 1e9),
    "without mass": ("masses", lambda t: t * 0),
    "a size of one": ("sizes", lambda t: np.where(np.arange(len(t)) == 0, 1.0, t)),
    "far away": ("lowest", lambda t: t - 2.0**40),
    "immense": ("sizes", lambda t: t * 2.0**40),
}


@pytest.mark.parametrize(("name", "spoil"), FAULTS.values(), ids=FAULTS)
def test_invalid_tables_are_refused(name: str, spoil: object) -> None:
    assert callable(spoil)
    prior = model_of(WITH_PRIOR[0]).prior
    assert prior is not None
    stored = tables_of(WITH_PRIOR[0]).tables_to_store()
    spoilt = spoil(stored[name])
    stored = {key: value for key, value in stored.items() if key != name} | ({} if spoilt is None else {name: spoilt})
    with pytest.raises(UnusableModelError, match=r"^table.*: .*; export the model again$"):
        PriorTables(prior, stored)


def test_the_tables_of_a_bfloat16_or_float64_model_are_computed_in_doubles() -> None:
    prior = FactorizedDensity(3)
    expected = PriorTables(prior).tables_to_store()
    for name, table in PriorTables(prior.double()).tables_to_store().items():
        assert np.array_equal(table, expected[name])
