"""Range coding round-trips at the expected length, and garbage raises `BitstreamError`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jahp_pl.codec.arrays import Float64Array
from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.codec.entropy.range_coder import MASS_BITS, ChannelTable, Reader, Writer

INT32 = st.integers(-(2**31), 2**31 - 1)


def random_masses(rng: np.random.Generator, count: int, width: int) -> Float64Array:
    """Return integers from 0 to 2^40, half of them 0, without rows of zeros."""
    masses: Float64Array = np.floor(2.0 ** rng.uniform(0, 40, (count, width))) * rng.integers(0, 2, (count, width))
    masses[:, rng.integers(width)] += 1
    return masses


@given(seed=st.integers(0, 2**32), width=st.integers(2, 2048), count=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_symbols_round_trip_even_if_their_mass_is_zero(seed: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    masses = random_masses(rng, count, width)
    symbols = rng.integers(0, width, count, dtype=np.int32)
    writer = Writer()
    writer.write_rows(symbols, masses)
    reader = Reader(writer.payload())
    assert np.array_equal(reader.read_rows(masses), symbols)
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


def test_the_extremes_of_32_bits_and_symbols_outside_the_table_survive() -> None:
    table = ChannelTable(-2, np.array([1.0, 2.0, 3.0, 1.0]))
    symbols = np.array([-(2**31), 2**31 - 1, -3, 1, -2, 0, 0, 2**16, -(2**16), -1], dtype=np.int32)
    writer = Writer()
    writer.write_channel(symbols, table)
    assert Reader(writer.payload()).read_channel(len(symbols), table).tolist() == symbols.tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 255, 40000, 65535, 65536])
def test_equally_likely_values_cost_the_logarithm_of_their_number(size: int) -> None:
    values = np.random.default_rng(0).integers(0, size, 2000, dtype=np.int32)
    values[:2] = 0, size - 1
    writer = Writer()
    writer.write_uniform(values, size)
    assert writer.bits == pytest.approx(2000 * math.log2(size))
    # Each value gets 2^24 / size steps, rounded down; the last one gets the rest.
    assert -1 < 8 * len(writer.payload()) - writer.bits < 64 + 2000 * 0.003
    reader = Reader(writer.payload())
    assert np.array_equal(reader.read_uniform(2000, size), values)
    reader.finish()


def test_no_values_write_nothing() -> None:
    writer = Writer()
    writer.write_uniform(np.zeros(0, dtype=np.int32), 500)
    writer.write_uniform(np.zeros(9, dtype=np.int32), 1)
    assert writer.payload() == Writer().payload()
    assert Reader(b"").read_uniform(0, 500).shape == (0,)
    assert Reader(b"").read_uniform(9, 1).tolist() == [0] * 9


@pytest.mark.parametrize("width", [8, 2048])
def test_the_payload_is_as_long_as_the_bits_that_are_measured(width: int) -> None:
    """The bits are measured under the tables that code the symbols, in which nothing is impossible."""
    rng = np.random.default_rng(0)
    masses = rng.integers(1, 2**24, (4000, width)).astype(float) * rng.integers(0, 2, (4000, width))
    masses[:, 3] += 1
    cumulative = masses.cumsum(axis=1) / masses.sum(axis=1, keepdims=True)
    symbols = (rng.random((4000, 1)) > cumulative).sum(axis=1).astype(np.int32)
    symbols[:40] = rng.integers(0, width, 40)
    channel = rng.integers(-9, 10, 4000, dtype=np.int32)
    table = ChannelTable(-8, np.array([*range(17), 5.0]))
    plain, measuring = Writer(), Writer(measure=True)
    for writer in (plain, measuring):
        writer.write_rows(symbols, masses)
        writer.write_channel(channel, table)
    assert plain.payload() == measuring.payload()
    assert plain.bits == 0
    assert -1 < 8 * len(plain.payload()) - measuring.bits < 64 + 2e-4 * measuring.bits


def test_an_entry_without_mass_costs_24_bits() -> None:
    writer = Writer(measure=True)
    writer.write_rows(np.array([1], dtype=np.int32), np.array([[7.0, 0.0, 9.0]]))
    assert writer.bits == pytest.approx(MASS_BITS)


def test_the_payload_of_known_symbols_is_pinned() -> None:
    """If a word changed, files of earlier versions would no longer decode."""
    writer = Writer()
    wide = np.arange(12.0).reshape(2, 6) * 2.0**35
    writer.write_rows(np.array([0, 5], dtype=np.int32), wide)
    writer.write_rows(np.array([0, 2, 1], dtype=np.int32), np.array([[7.0, 1, 0], [1, 1, 2**40], [3, 3, 3]]))
    writer.write_channel(np.array([0, 1, 70000, -9], dtype=np.int32), ChannelTable(0, np.array([1000.0, 20, 1])))
    writer.write_uniform(np.array([0, 999, 12345], dtype=np.int32), 12346)
    assert writer.payload().hex() == PINNED


PINNED = "e80000007a6e0ca255299d5441d3ffafa67622d2"


def test_no_symbols_make_a_payload_that_finishes() -> None:
    reader = Reader(Writer().payload())
    reader.finish()


def test_unread_symbols_are_noticed() -> None:
    rng = np.random.default_rng(0)
    masses = random_masses(rng, 400, 9)
    writer = Writer()
    writer.write_rows(rng.integers(0, 9, 400, dtype=np.int32), masses)
    reader = Reader(writer.payload())
    reader.read_rows(masses[:200])
    with pytest.raises(BitstreamError):
        reader.finish()


@given(words=st.binary(max_size=64), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_garbage_decodes_or_raises_bitstream_error(words: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reader = Reader(words[: len(words) // 4 * 4])
    table = ChannelTable(-3, np.array([5.0, 0.0, 900.0, 3.0, 1.0]))
    try:
        for width in (8, 32, 2048):
            symbols = reader.read_rows(random_masses(rng, 30, width))
            assert symbols.min() >= 0
            assert symbols.max() < width
        size = int(rng.integers(1, 65537))
        values = reader.read_uniform(30, size)
        assert values.min() >= 0
        assert values.max() < size
        reader.read_channel(30, table)
        reader.finish()
    except BitstreamError:
        return
