"""Writes integer symbols to a payload and reads them back, with the range coder of constriction.

No other module imports constriction.

Every probability distribution is a table of masses: integers, up to a factor per table. No probability therefore
depends on a machine's exp or erf.

Guarantees: a Reader with the same sequence of tables reads back what a Writer wrote, in the same order. Every entry of
a table has at least the smallest probability, 2^-24, so no symbol is impossible.
"""

from __future__ import annotations

import math
from typing import Any

import constriction
import numpy as np

from jahp_pl.codec.arrays import Float64Array, IntArray
from jahp_pl.codec.bitstream import INCOMPATIBLE_FILE, BitstreamError

MASS_BITS = 24
"""Probabilities are multiples of 2^-24, the resolution of the range coder."""
_WORD = np.dtype("<u4")
_ESCAPE_BASE = 2**16


class ChannelTable:
    """One table for many symbols: a mass for each integer from `lowest` on, and one for everything else.

    Args:
        lowest: symbol of the first mass.
        masses: (symbols + 1,) integers, probabilities up to a factor. The last one is the escape, after which the
            symbol itself follows in 32 plain bits.
    """

    def __init__(self, lowest: int, masses: Float64Array) -> None:
        self.lowest = lowest
        self.escape = len(masses) - 1
        self.masses = masses
        self.model = constriction.stream.model.Categorical(masses, perfect=False)

    def __reduce__(self) -> tuple[type[ChannelTable], tuple[int, Float64Array]]:
        """Pickle the arguments, because constriction's models cannot be pickled."""
        return ChannelTable, (self.lowest, self.masses)


_SIXTEEN_BITS = constriction.stream.model.Uniform(_ESCAPE_BASE)
_ROWS = constriction.stream.model.Categorical(perfect=False)


class Writer:
    """A payload under construction, to which symbols are appended.

    Args:
        measure: whether to sum up in `bits` the cost of the symbols under their tables.
    """

    def __init__(self, measure: bool = False) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._measure = measure
        self.bits = 0.0
        """Cross-entropy, in bits, of all symbols so far under the tables with which they are coded; 0 without
        `measure`."""

    def write_rows(self, indices: IntArray, masses: Float64Array) -> None:
        """Append n symbols, (n,) from 0 to entries - 1, each under its own row of `masses`, (n, entries)."""
        self._encode(indices, _ROWS, masses)
        if self._measure:
            chosen = np.take_along_axis(masses, indices[:, None].astype(np.int64), axis=1)[:, 0]
            self.bits += _leaky_bits(chosen / masses.sum(axis=1), masses.shape[1])

    def write_channel(self, symbols: IntArray, table: ChannelTable) -> None:
        """Append symbols, (n,) of any 32-bit value, all under one table."""
        indices = symbols.astype(np.int64) - table.lowest
        outside = (indices < 0) | (indices >= table.escape)
        indices = np.where(outside, table.escape, indices).astype(np.int32)
        self._encode(indices, table.model)
        if outside.any():
            unsigned = symbols[outside].view(np.uint32)
            halves = np.stack([unsigned // _ESCAPE_BASE, unsigned % _ESCAPE_BASE], axis=1)
            self._encode(halves.astype(np.int32).ravel(), _SIXTEEN_BITS)
        if self._measure:
            self.bits += _leaky_bits(table.masses[indices] / table.masses.sum(), len(table.masses))
            self.bits += 32 * int(outside.sum())

    def write_uniform(self, values: IntArray, size: int) -> None:
        """Append n values, (n,) from 0 to size - 1, all equally likely; size up to 65536."""
        if size > 1 and len(values):
            self._encode(values, constriction.stream.model.Uniform(size))
            self.bits += len(values) * math.log2(size)

    def _encode(self, *arguments: Any) -> None:
        try:
            self._encoder.encode(*arguments)
        except BaseException as error:
            if not _is_refusal(error):
                raise
            raise ValueError(
                "the model's tables cannot code these symbols; its weights are damaged; use an earlier checkpoint"
            ) from error

    def payload(self) -> bytes:
        """Return all symbols so far as bytes, a multiple of 4."""
        words = self._encoder.get_compressed()
        return np.asarray(words).astype(_WORD).tobytes()


class Reader:
    """A payload from which symbols are read back in the order in which they were written.

    Args:
        payload: a multiple of 4 bytes.
    """

    def __init__(self, payload: bytes) -> None:
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, dtype=_WORD).astype(np.uint32))

    def read_rows(self, masses: Float64Array) -> IntArray:
        """Read the next n symbols, (n,) from 0 to entries - 1, each under its own row of `masses`, (n, entries).

        Raises:
            BitstreamError: if the payload cannot have been written under these tables.
        """
        return self._decode(_ROWS, masses)

    def read_channel(self, count: int, table: ChannelTable) -> IntArray:
        """Read the next `count` symbols, (count,), all under one table.

        Raises:
            BitstreamError: see `read_rows`.
        """
        indices = self._decode(table.model, count)
        symbols: IntArray = indices + np.int32(table.lowest)
        escaped = indices == table.escape
        if escaped.any():
            halves = self._decode(_SIXTEEN_BITS, 2 * int(escaped.sum())).astype(np.uint32)
            symbols[escaped] = (halves[0::2] * np.uint32(_ESCAPE_BASE) + halves[1::2]).view(np.int32)
        return symbols

    def read_uniform(self, count: int, size: int) -> IntArray:
        """Read the next `count` values, (count,) from 0 to size - 1, see `Writer.write_uniform`.

        Raises:
            BitstreamError: see `read_rows`.
        """
        if size == 1 or count == 0:
            return np.zeros(count, dtype=np.int32)
        return self._decode(constriction.stream.model.Uniform(size), count)

    def _decode(self, *arguments: Any) -> IntArray:
        try:
            return np.asarray(self._decoder.decode(*arguments))
        except BaseException as error:
            if not _is_refusal(error):
                raise
            raise _undecodable() from error

    def finish(self) -> None:
        """Check that the payload is used up.

        Raises:
            BitstreamError: if data is left, which means that the symbols read are not those that were written.
        """
        if not self._decoder.maybe_exhausted():
            raise _undecodable()


def _leaky_bits(probability: Float64Array, num_symbols: int) -> float:
    """Compute the total bits of symbols with probabilities (n,), adjusted by the coder, in a table of `num_symbols`."""
    # So that no symbol is impossible, the coder uses p (1 - n 2^-24) + 2^-24 for each of n symbols.
    leak = 2.0**-MASS_BITS
    return float(-np.log2(probability * (1 - num_symbols * leak) + leak).sum())


def _is_refusal(error: BaseException) -> bool:
    """Check whether constriction refused the data. A Rust panic is a BaseException whose class cannot be imported."""
    return isinstance(error, AssertionError | ValueError) or type(error).__name__ == "PanicException"


def _undecodable() -> BitstreamError:
    return BitstreamError(f"the payload does not decode under this model's probabilities; {INCOMPATIBLE_FILE}")
