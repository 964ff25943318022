"""Codes y_hat under p(y_hat | z_hat, earlier y_hat), for every entropy model that has such a density, in any runtime.

The context of a position consists of latents that precede it in coding order. The encoder knows all latents and
computes the parameters of many wavefronts at once; the decoder computes one wavefront at a time with the same function.
Both code symbols in the order of wavefront, image, kind of window, position and channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, Protocol

import numpy as np

from jahp_pl.codec.arrays import Float32Array, IndexArray, IntArray
from jahp_pl.codec.entropy.integer_layers import LATENT_RADIX
from jahp_pl.codec.entropy.range_coder import Reader, Writer
from jahp_pl.codec.entropy.wavefront import CodingOrder, Step
from jahp_pl.codec.entropy.window_tables import WIDTHS, Windows, WindowTables
from jahp_pl.codec.latents import Integers

ENCODED_POSITIONS = 512
"""Approximate number of positions whose parameters the encoder computes at a time; bounds the memory and does not
affect the file."""
MAX_TABLE_ENTRIES = 2**22
"""Table entries in memory at a time, 32 MB; does not affect the file."""


class LatentRange(NamedTuple):
    """Range of the latents of an image, both ends included."""

    lowest: int
    highest: int

    @classmethod
    def of(cls, y_hat: Integers) -> LatentRange:
        """Return the smallest range that holds these latents."""
        return cls(int(y_hat.min()), int(y_hat.max()))  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """Number of integers in the range."""
        return self.highest - self.lowest + 1

    def is_within(self, lowest: int, highest: int) -> bool:
        """Check whether all integers of this range are from `lowest` to `highest`."""
        return lowest <= self.lowest and self.highest <= highest

    @property
    def num_pieces(self) -> int:
        """Number of pieces in which the latents enter g_cm, 1 or 2; see `integer_layers.LATENT_RADIX`."""
        return 1 if max(-self.lowest, self.highest) <= LATENT_RADIX // 2 else 2


class DecodeTask(NamedTuple, Generic[Integers]):
    """The latents of one image that are to be decoded."""

    reader: Reader
    height: int
    """Rows of latents."""
    width: int
    """Columns of latents."""
    z_hat: Integers | None
    """(N, ceil(height / 4), ceil(width / 4)) int32; None without side information."""
    latent_range: LatentRange
    """Range of the latents, as stated in the header."""


def common_range(tasks: Sequence[DecodeTask[Integers]]) -> LatentRange:
    """Return the smallest range that holds the latents of all images."""
    ranges = [task.latent_range for task in tasks]
    return LatentRange(min(one.lowest for one in ranges), max(one.highest for one in ranges))


class LatentBatch(Protocol):
    """Latents of several images in coding order, and the raw parameters that a runtime computes from them."""

    @property
    def order(self) -> CodingOrder:
        """The coding order."""

    def parameters(self, start: int, stop: int) -> Float32Array:
        """Compute the raw parameters of positions by rank: (stop - start, outputs) integers, in steps of 2^-12."""

    def insert(self, start: int, symbols: IntArray) -> None:
        """Insert latents (P, M) at ranks from `start` on, so that later positions can use them as context."""


class SymbolCoder:
    """Coder that writes and reads latents in coding order.

    Args:
        tables: converts raw parameters to tables of masses.
    """

    def __init__(self, tables: WindowTables) -> None:
        self.tables = tables

    def write_batch(self, writer: Writer, batch: LatentBatch, y_hat: IntArray, latent_range: LatentRange) -> None:
        """Append the latents (M, h, w) of the only image of a batch."""
        num_latents = len(y_hat)
        symbols = np.empty((y_hat[0].size, num_latents), dtype=np.int32)
        symbols[batch.order.ranks[0]] = y_hat.reshape(num_latents, -1).T
        batch.insert(0, symbols)
        for steps in _group_steps(batch.order.steps):
            start, stop = steps[0].start, steps[-1].stop
            windows = self.tables.windows(batch.parameters(start, stop))
            values = symbols[start:stop].ravel()
            bounds = [(step.start - start) * num_latents for step in steps] + [len(values)]
            self._write_steps(writer, values, windows, bounds, latent_range)

    def read_batch(
        self, tasks: Sequence[DecodeTask[Integers]], batch: LatentBatch, begin_step: Callable[[], None] = lambda: None
    ) -> list[IntArray]:
        """Read the next latents of each image of a batch, (M, height, width) each; the images advance in lockstep.

        Args:
            tasks: images whose readers have already read z_hat.
            batch: latents of the same images.
            begin_step: called before each step; may raise.

        Raises:
            BitstreamError: if a payload does not decode, or its latents are out of range.
        """
        num_latents = self.tables.num_latents
        symbols = np.empty((sum(len(ranks) for ranks in batch.order.ranks), num_latents), dtype=np.int32)
        for steps in batch.order.steps:
            begin_step()
            start = steps[0].start
            windows = self.tables.windows(batch.parameters(start, steps[-1].stop))
            bounds = [(step.start - start) * num_latents for step in steps] + [len(windows.lowest)]
            values = self._read_step([tasks[step.image] for step in steps], windows, bounds).reshape(-1, num_latents)
            symbols[start : steps[-1].stop] = values
            batch.insert(start, values)
        return [
            symbols[ranks].T.reshape(num_latents, task.height, task.width)
            for ranks, task in zip(batch.order.ranks, tasks, strict=True)
        ]

    def _write_steps(
        self, writer: Writer, values: IntArray, windows: Windows, bounds: Sequence[int], latent_range: LatentRange
    ) -> None:
        """Append latents (n,), step by step; step i consists of latents `bounds[i]` to `bounds[i + 1]`."""
        entries = (values - windows.lowest).view(np.uint32)  # entries below the window become large ones
        groups = [(group, np.minimum(entries.take(group.chosen), WIDTHS[group.kind] - 1).view(np.int32))
                  for group in _groups(windows, bounds)]  # fmt: skip
        for number in range(len(bounds) - 1):
            for (kind, chosen, cuts), indices in groups:
                part = slice(cuts[number], cuts[number + 1])
                if part.start < part.stop:
                    self._write_rows(writer, indices[part], windows, chosen[part], kind)
                    if indices[part].max() == WIDTHS[kind] - 1:
                        outside = chosen[part][indices[part] == WIDTHS[kind] - 1]
                        writer.write_uniform(values[outside] - np.int32(latent_range.lowest), latent_range.size)

    def _write_rows(self, writer: Writer, indices: IntArray, windows: Windows, chosen: IndexArray, kind: int) -> None:
        for first, part in _chunks(chosen, WIDTHS[kind]):
            writer.write_rows(indices[first : first + len(part)], self.tables.masses(windows, part, kind))

    def _read_step(self, tasks: Sequence[DecodeTask[Integers]], windows: Windows, bounds: Sequence[int]) -> IntArray:
        """Read the latents (n,) of one step; those of task i are latents `bounds[i]` to `bounds[i + 1]`."""
        values = windows.lowest.copy()
        for kind, chosen, cuts in _groups(windows, bounds):
            indices = self._read_rows(tasks, windows, chosen, cuts, kind)
            values[chosen] += indices
            escape = WIDTHS[kind] - 1
            if indices.max() < escape:
                continue
            for task, (start, stop) in zip(tasks, pairwise(cuts), strict=True):
                outside = chosen[start:stop][indices[start:stop] == escape]
                lowest, size = np.int32(task.latent_range.lowest), task.latent_range.size
                values[outside] = lowest + task.reader.read_uniform(len(outside), size)
        return values

    def _read_rows(
        self, tasks: Sequence[DecodeTask[Integers]], windows: Windows, chosen: IndexArray, cuts: list[int], kind: int
    ) -> IntArray:
        parts = []
        for first, part in _chunks(chosen, WIDTHS[kind]):
            rows, last = self.tables.masses(windows, part, kind), first + len(part)
            for task, (low, high) in zip(tasks, pairwise(cuts), strict=True):
                start, stop = max(low, first), min(high, last)
                if start < stop:
                    parts.append(task.reader.read_rows(rows[start - first : stop - first]))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Group(NamedTuple):
    """Latents whose windows are of one kind."""

    kind: int
    chosen: IndexArray
    """Their indices in ascending order."""
    cuts: list[int]
    """The latents of step i (encoder) or task i (decoder) are `chosen[cuts[i]:cuts[i + 1]]`."""


def _groups(windows: Windows, bounds: Sequence[int]) -> Iterator[_Group]:
    """Group latents by the kind of their windows; step or task i consists of latents `bounds[i]` to `bounds[i + 1]`."""
    for kind in range(int(windows.kind.max()) + 1):
        chosen = (windows.kind == kind).nonzero()[0]
        if len(chosen):
            yield _Group(kind, chosen, chosen.searchsorted(bounds).tolist())


def _chunks(chosen: IndexArray, width: int) -> Iterator[tuple[int, IndexArray]]:
    """Split `chosen` into parts whose tables have at most `MAX_TABLE_ENTRIES`; yield each part after its start."""
    size = max(1, MAX_TABLE_ENTRIES // width)
    for first in range(0, len(chosen), size):
        yield first, chosen[first : first + size]


def _group_steps(steps: list[list[Step]]) -> Iterator[list[Step]]:
    """Group the steps of a single image into runs of about `ENCODED_POSITIONS` positions."""
    run: list[Step] = []
    for (step,) in steps:
        run.append(step)
        if step.stop - run[0].start >= ENCODED_POSITIONS:
            yield run
            run = []
    if run:
        yield run
