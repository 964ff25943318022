"""Range coding: what is written is read, at the promised length, and garbage raises one exception."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.codec.coder import ChannelTable, Located, Reader, Tabulated, Writer
from jahp_pl.codec.tables import exact_bits

INT32 = st.integers(-(2**31), 2**31 - 1)


def located(rng: np.random.Generator, count: int, lowest: int, highest: int, family: str) -> Located:
    mu = np.round(rng.uniform(-4096, 4096, count) * rng.choice([1e-3, 1e-2, 1.0], count) * 4096) / 4096
    sigma = np.exp(rng.uniform(math.log(0.11), math.log(256), count))
    return Located("gaussian" if family == "gaussian" else "laplace", lowest, highest, mu, sigma)


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
@given(seed=st.integers(0, 2**32), ends=st.tuples(st.integers(-32768, 32767), st.integers(-32768, 32767)))
@settings(max_examples=60, deadline=None)
def test_located_symbols_come_back_however_unlikely(family: str, seed: int, ends: tuple[int, int]) -> None:
    lowest, highest = min(ends), max(ends)
    rng = np.random.default_rng(seed)
    model = located(rng, 200, lowest, highest, family)
    symbols = rng.integers(lowest, highest + 1, 200, dtype=np.int32)
    symbols[:2] = lowest, highest
    writer = Writer()
    writer.write(symbols, model)
    reader = Reader(writer.payload())
    assert np.array_equal(reader.read(model), symbols)
    reader.finish()


@given(seed=st.integers(0, 2**32), lowest=st.integers(-32768, 32700), width=st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_tabulated_symbols_come_back_even_where_their_mass_is_zero(seed: int, lowest: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    masses = np.floor(2.0 ** rng.uniform(0, 40, (50, width))) * rng.integers(0, 2, (50, width))
    masses[:, rng.integers(width)] += 1
    symbols = rng.integers(lowest, lowest + width, 50, dtype=np.int32)
    writer = Writer()
    writer.write(symbols, Tabulated(lowest, masses))
    reader = Reader(writer.payload())
    assert np.array_equal(reader.read(Tabulated(lowest, masses)), symbols)
    reader.finish()


@given(symbols=st.lists(st.one_of(st.integers(-12, 12), INT32), max_size=40), lowest=st.integers(-20, 5))
@settings(max_examples=100, deadline=None)
def test_a_channel_codes_any_32_bit_symbol(symbols: list[int], lowest: int) -> None:
    table = ChannelTable(lowest, np.array([5.0, 0.0, 900.0, 3.0, 1.0]))
    array = np.array(symbols, dtype=np.int32)
    writer = Writer()
    writer.write_channel(array, table)
    writer.write_channel(array[::-1].copy(), table)
    reader = Reader(writer.payload())
    assert reader.read_channel(len(array), table).tolist() == symbols
    assert reader.read_channel(len(array), table).tolist() == symbols[::-1]
    reader.finish()


def test_the_ends_of_32_bits_and_the_symbols_beside_the_table_survive() -> None:
    table = ChannelTable(-2, np.array([1.0, 2.0, 3.0, 1.0]))
    symbols = np.array([-(2**31), 2**31 - 1, -3, 1, -2, 0, 0, 2**16, -(2**16), -1], dtype=np.int32)
    writer = Writer()
    writer.write_channel(symbols, table)
    assert Reader(writer.payload()).read_channel(len(symbols), table).tolist() == symbols.tolist()


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_a_range_of_one_symbol_is_coded_for_next_to_nothing(family: str) -> None:
    rng = np.random.default_rng(0)
    model = located(rng, 5000, 7, 7, family)._replace(mu=np.full(5000, 7.0))
    symbols = np.full(5000, 7, dtype=np.int32)
    writer = Writer()
    writer.write(symbols, model._replace(sigma=np.full(5000, 0.11)))
    assert len(writer.payload()) <= 8
    reader = Reader(writer.payload())
    assert np.array_equal(reader.read(model._replace(sigma=np.full(5000, 0.11))), symbols)


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_the_payload_is_as_long_as_the_cross_entropy(family: str) -> None:
    rng = np.random.default_rng(0)
    model = located(rng, 20000, -4000, 4000, family)
    model = model._replace(mu=model.mu / 16)
    spread = model.sigma * (rng.standard_normal(20000) if family == "gaussian" else rng.laplace(size=20000))
    symbols = np.clip(np.round(model.mu + spread), -4000, 4000).astype(np.int32)
    writer = Writer()
    writer.write(symbols, model)
    bits = exact_bits(symbols, model)
    assert abs(8 * len(writer.payload()) / bits - 1) < 5e-4


def test_tables_cost_what_their_masses_say() -> None:
    rng = np.random.default_rng(0)
    masses = rng.integers(1, 2**24, (20000, 9)).astype(float)
    cumulative = masses.cumsum(axis=1) / masses.sum(axis=1, keepdims=True)
    symbols = (rng.random((20000, 1)) > cumulative).sum(axis=1).astype(np.int32) - 4
    writer = Writer()
    writer.write(symbols, Tabulated(-4, masses))
    assert abs(8 * len(writer.payload()) / exact_bits(symbols, Tabulated(-4, masses)) - 1) < 5e-4


def test_the_payload_of_known_symbols_is_pinned() -> None:
    """Another word here means that files of earlier versions no longer decode."""
    writer = Writer()
    mu = np.array([0.25, -3.5, 100.0, 4096.0, 0.0, 1 / 4096])
    sigma = np.array([0.11, 1.5, 256.0, 0.5, 20.0, 3.25])
    symbols = np.array([0, -5, 333, 12, -40, 2], dtype=np.int32)
    writer.write(symbols, Located("gaussian", -500, 500, mu, sigma))
    writer.write(symbols, Located("laplace", -500, 500, mu, sigma))
    writer.write(np.array([1, 3, 2], dtype=np.int32), Tabulated(1, np.array([[7.0, 1, 0], [1, 1, 2**40], [3, 3, 3]])))
    writer.write_channel(np.array([0, 1, 70000, -9], dtype=np.int32), ChannelTable(0, np.array([1000.0, 20, 1])))
    assert writer.payload().hex() == PINNED


PINNED = "42867a38a40400fd6e45a35d21d4ff8d03fe1807bcffffb6"


def test_no_symbols_make_a_payload_that_finishes() -> None:
    reader = Reader(Writer().payload())
    reader.finish()


def test_symbols_that_were_not_read_are_noticed() -> None:
    rng = np.random.default_rng(0)
    model = located(rng, 400, -50, 50, "gaussian")
    writer = Writer()
    writer.write(rng.integers(-50, 51, 400, dtype=np.int32), model)
    reader = Reader(writer.payload())
    reader.read(Located("gaussian", -50, 50, model.mu[:200], model.sigma[:200]))
    with pytest.raises(BitstreamError):
        reader.finish()


@given(words=st.binary(max_size=64), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_garbage_decodes_or_raises_the_one_exception(words: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reader = Reader(words[: len(words) // 4 * 4])
    table = ChannelTable(-3, np.array([5.0, 0.0, 900.0, 3.0, 1.0]))
    try:
        for family in ("gaussian", "laplace"):
            symbols = reader.read(located(rng, 30, -32768, 32767, family))
            assert symbols.min() >= -32768
            assert symbols.max() <= 32767
        reader.read(Tabulated(-5, np.floor(2.0 ** rng.uniform(0, 40, (30, 11)))))
        reader.read_channel(30, table)
        reader.finish()
    except BitstreamError:
        return
