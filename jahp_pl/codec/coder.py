"""Writer and Reader of integer symbols: the only door to constriction, whose range coder does the arithmetic.

Guarantees: what a Writer wrote under a sequence of symbol models, a Reader given equal models reads back, in the same
order. Models are equal if their numbers are equal to the last bit; constriction evaluates them with IEEE doubles and a
mathematical library of its own, so equal numbers give equal probabilities on every platform. Every symbol of a model's
range has at least the smallest probability, 2^-24, so none is impossible.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import constriction
import numpy as np
import numpy.typing as npt

from jahp_pl.codec.bitstream import BitstreamError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]

_WORD = np.dtype("<u4")
_ESCAPE_BASE = 2**16


class Located(NamedTuple):
    """n symbols under Gaussians or Laplace densities of their own, integrated over unit bins."""

    family: Literal["gaussian", "laplace"]
    lowest: int
    """Smallest symbol that can be coded."""
    highest: int
    """Largest symbol that can be coded; the mass outside of the range belongs to its two ends."""
    mu: FloatArray
    """(n,) locations."""
    sigma: FloatArray
    """(n,) scales > 0."""


class Tabulated(NamedTuple):
    """n symbols under tables of their own."""

    lowest: int
    """Symbol of the first column."""
    masses: FloatArray
    """(n, symbols) integers below 2^53: probabilities up to a factor per row."""


class ChannelTable:
    """One table for many symbols: a mass for each integer from `lowest` on, and a last one for everything else.

    Args:
        lowest: symbol of the first mass.
        masses: (symbols + 1,) integers: probabilities up to a factor; the last is that of an escape, behind which the
            symbol itself follows in 32 plain bits.
    """

    def __init__(self, lowest: int, masses: FloatArray) -> None:
        self.lowest = lowest
        self.escape = len(masses) - 1
        self.model = constriction.stream.model.Categorical(masses, perfect=False)


_PLAIN = constriction.stream.model.Uniform(_ESCAPE_BASE)


class Writer:
    """Collects symbols into a payload."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def write(self, symbols: IntArray, model: Located | Tabulated) -> None:
        """Append n symbols, (n,), each within the model's range."""
        if isinstance(model, Located):
            self._encoder.encode(symbols, _located(model), model.mu, model.sigma)
        else:
            indices = symbols - np.int32(model.lowest)
            self._encoder.encode(indices, constriction.stream.model.Categorical(perfect=False), model.masses)

    def write_channel(self, symbols: IntArray, table: ChannelTable) -> None:
        """Append symbols, (n,), of any 32-bit value, all under one table."""
        indices = symbols.astype(np.int64) - table.lowest
        outside = (indices < 0) | (indices >= table.escape)
        self._encoder.encode(np.where(outside, table.escape, indices).astype(np.int32), table.model)
        if outside.any():
            unsigned = symbols[outside].view(np.uint32)
            halves = np.stack([unsigned // _ESCAPE_BASE, unsigned % _ESCAPE_BASE], axis=1)
            self._encoder.encode(halves.astype(np.int32).ravel(), _PLAIN)

    def payload(self) -> bytes:
        """All symbols so far, a multiple of 4 bytes."""
        words = self._encoder.get_compressed()
        return np.asarray(words).astype(_WORD).tobytes()


class Reader:
    """Reads symbols back from a payload.

    Args:
        payload: a multiple of 4 bytes.
    """

    def __init__(self, payload: bytes) -> None:
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, dtype=_WORD).astype(np.uint32))

    def read(self, model: Located | Tabulated) -> IntArray:
        """The next n symbols, (n,).

        Raises:
            BitstreamError: the payload cannot have been written under these models.
        """
        try:
            if isinstance(model, Located):
                return np.asarray(self._decoder.decode(_located(model), model.mu, model.sigma))
            family = constriction.stream.model.Categorical(perfect=False)
            return np.asarray(self._decoder.decode(family, model.masses)) + np.int32(model.lowest)
        except AssertionError as error:
            raise _undecodable() from error

    def read_channel(self, count: int, table: ChannelTable) -> IntArray:
        """The next `count` symbols of one table, (count,).

        Raises:
            BitstreamError: as `read`.
        """
        try:
            indices = np.asarray(self._decoder.decode(table.model, count))
            symbols = indices + np.int32(table.lowest)
            escaped = indices == table.escape
            if escaped.any():
                halves = np.asarray(self._decoder.decode(_PLAIN, 2 * int(escaped.sum()))).astype(np.uint32)
                symbols[escaped] = (halves[0::2] * np.uint32(_ESCAPE_BASE) + halves[1::2]).view(np.int32)
            return symbols
        except AssertionError as error:
            raise _undecodable() from error

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            BitstreamError: symbols remain, so what was read is not what was written.
        """
        if not self._decoder.maybe_exhausted():
            raise _undecodable()


def _located(model: Located) -> constriction.stream.model.Model:
    kinds = constriction.stream.model
    family = kinds.QuantizedGaussian if model.family == "gaussian" else kinds.QuantizedLaplace
    # constriction wants a range of at least two symbols.
    return family(model.lowest, max(model.highest, model.lowest + 1))


def _undecodable() -> BitstreamError:
    return BitstreamError("the payload does not decode under this model's probabilities; the file was made differently")
