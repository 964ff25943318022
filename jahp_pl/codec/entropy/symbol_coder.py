"""Codes y_hat under p(y_hat | z_hat, earlier y_hat), for every rung that has such a density, in any runtime.

The context of a position consists of latents that precede it in coding order. The encoder knows all latents and
computes the parameters of many wavefronts at once; the decoder computes one wavefront at a time with the same function.
Both code symbols in the order of wavefront, image, kind of window, position and channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol

import numpy as np

from jahp_pl.codec.arrays import Float32Array, IndexArray, IntArray
from jahp_pl.codec.entropy.freezing import LATENT_RADIX
from jahp_pl.codec.entropy.range_coder import Reader, Writer
from jahp_pl.codec.entropy.wavefront import Schedule, Step
from jahp_pl.codec.entropy.window_tables import WIDTHS, Windows, WindowTables
from jahp_pl.codec.latents import Integers

ENCODED_POSITIONS = 128
"""Approximate number of positions whose parameters the encoder computes at a time; bounds the memory and does not
affect the file."""
MAX_CELLS = 2**22
"""Table entries held at a time, 32 MB; does not affect the file."""


class LatentRange(NamedTuple):
    """Range of the latents of an image, both ends included."""

    lowest: int
    highest: int

    @property
    def size(self) -> int:
        """Number of integers in the range."""
        return self.highest - self.lowest + 1

    def fits(self, lowest: int, highest: int) -> bool:
        """Check whether it is part of another range."""
        return lowest <= self.lowest and self.highest <= highest

    @property
    def num_pieces(self) -> int:
        """Number of pieces in which the latents enter g_cm, 1 or 2; see `freezing.LATENT_RADIX`."""
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
    span: LatentRange
    """Range of the latents, as stated in the header."""


def common_range(tasks: Sequence[DecodeTask[Integers]]) -> LatentRange:
    """Return the smallest range that holds the latents of all images."""
    return LatentRange(min(task.span.lowest for task in tasks), max(task.span.highest for task in tasks))


class Frame(Protocol):
    """Latents of several images in coding order, and the raw parameters that a runtime computes from them."""

    @property
    def schedule(self) -> Schedule:
        """The coding order."""

    def parameters(self, start: int, stop: int) -> Float32Array:
        """Compute the raw parameters of positions by rank: (stop - start, outputs) integers, in steps of 2^-12."""

    def show(self, start: int, symbols: IntArray) -> None:
        """Insert latents (P, M) at ranks from `start` on, so that later positions can use them as context."""


class SymbolCoder:
    """Coder that writes and reads latents in coding order.

    Args:
        tables: converts raw parameters to tables of masses.
    """

    def __init__(self, tables: WindowTables) -> None:
        self.tables = tables

    def write_frame(self, writer: Writer, frame: Frame, y_hat: IntArray, span: LatentRange) -> None:
        """Append the latents (M, h, w) of the only image of a frame."""
        num_latents = len(y_hat)
        symbols = np.empty((y_hat[0].size, num_latents), dtype=np.int32)
        symbols[frame.schedule.ranks[0]] = y_hat.reshape(num_latents, -1).T
        frame.show(0, symbols)
        for steps in _runs(frame.schedule.steps):
            start, stop = steps[0].start, steps[-1].stop
            windows = self.tables.windows(frame.parameters(start, stop))
            values = symbols[start:stop].ravel()
            for step in steps:
                part = slice((step.start - start) * num_latents, (step.stop - start) * num_latents)
                self._write_step(writer, values[part], _part(windows, part), span)

    def read_frame(
        self, tasks: Sequence[DecodeTask[Integers]], frame: Frame, begin_step: Callable[[], None] = lambda: None
    ) -> list[IntArray]:
        """Read the next latents of each image of a frame, (M, height, width) each; the images advance in lockstep.

        Args:
            tasks: images whose readers have already read z_hat.
            frame: frame of the same images.
            begin_step: called before each step; may raise.

        Raises:
            BitstreamError: if a payload does not decode, or its latents are out of range.
        """
        num_latents = self.tables.num_latents
        symbols = np.empty((sum(len(ranks) for ranks in frame.schedule.ranks), num_latents), dtype=np.int32)
        for steps in frame.schedule.steps:
            begin_step()
            start = steps[0].start
            windows = self.tables.windows(frame.parameters(start, steps[-1].stop))
            for step in steps:
                part = slice((step.start - start) * num_latents, (step.stop - start) * num_latents)
                values = self._read_step(tasks[step.image], _part(windows, part)).reshape(-1, num_latents)
                symbols[step.start : step.stop] = values
                frame.show(step.start, values)
        return [
            symbols[ranks].T.reshape(num_latents, task.height, task.width)
            for ranks, task in zip(frame.schedule.ranks, tasks, strict=True)
        ]

    def _write_step(self, writer: Writer, values: IntArray, windows: Windows, span: LatentRange) -> None:
        indices_in_window = values - windows.lowest
        for kind, chosen in _kinds(windows):
            escape = WIDTHS[kind] - 1
            indices = indices_in_window.take(chosen)
            np.minimum(indices.view(np.uint32), escape, out=indices.view(np.uint32))  # negative ones are large
            for first, part in _limited(chosen, WIDTHS[kind]):
                writer.write_rows(indices[first : first + len(part)], self.tables.masses(windows, part, kind))
            if indices.max() == escape:
                outside = indices == escape
                writer.write_uniform(values[chosen[outside]] - np.int32(span.lowest), span.size)

    def _read_step(self, task: DecodeTask[Integers], windows: Windows) -> IntArray:
        values = windows.lowest.copy()
        for kind, chosen in _kinds(windows):
            parts = [task.reader.read_rows(self.tables.masses(windows, part, kind))
                     for _, part in _limited(chosen, WIDTHS[kind])]  # fmt: skip
            indices = parts[0] if len(parts) == 1 else np.concatenate(parts)
            values[chosen] += indices
            escape = WIDTHS[kind] - 1
            if indices.max() == escape:
                outside = indices == escape
                escaped = task.reader.read_uniform(int(outside.sum()), task.span.size)
                values[chosen[outside]] = escaped + np.int32(task.span.lowest)
        return values


def _part(windows: Windows, part: slice) -> Windows:
    return Windows(windows.kind[part], windows.lowest[part], windows.source[..., part])


def _kinds(windows: Windows) -> Iterator[tuple[int, IndexArray]]:
    """Yield each kind of window that occurs, with the indices of the latents that have it."""
    for kind in range(int(windows.kind.max()) + 1):
        chosen = (windows.kind == kind).nonzero()[0]
        if len(chosen):
            yield kind, chosen


def _limited(chosen: IndexArray, width: int) -> Iterator[tuple[int, IndexArray]]:
    """Split `chosen` into parts whose tables have at most `MAX_CELLS` entries; yield each with its start."""
    size = max(1, MAX_CELLS // width)
    for first in range(0, len(chosen), size):
        yield first, chosen[first : first + size]


def _runs(steps: list[list[Step]]) -> Iterator[list[Step]]:
    """Group the steps of a single image into runs of about `ENCODED_POSITIONS` positions."""
    run: list[Step] = []
    for (step,) in steps:
        run.append(step)
        if step.stop - run[0].start >= ENCODED_POSITIONS:
            yield run
            run = []
    if run:
        yield run
