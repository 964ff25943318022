"""Codes y_hat under p(y_hat | z_hat, earlier y_hat), for every rung that has such a density.

The context of a position consists of latents that precede it in coding order. The encoder knows all latents and
computes the parameters of many wavefronts at once; the decoder computes one wavefront at a time with the same function.
Both code symbols by wavefront, then image, then kind of window, then position, then channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jahp_pl.codec.entropy.fixed_point import FixedPointLayer, Rows
from jahp_pl.codec.entropy.latent_tables import WIDTHS, Index, LatentTables, Windows
from jahp_pl.codec.entropy.networks import LATENT_RADIX, ExactContextNetwork, ExactHyperSynthesis, to_raw
from jahp_pl.codec.entropy.range_coder import IntArray, Reader, Writer
from jahp_pl.codec.entropy.thread_tuner import ThreadTuner
from jahp_pl.codec.entropy.torch_settings import full_precision
from jahp_pl.codec.entropy.wavefront import Schedule, Step, schedule

CHUNK = 512
"""Positions whose parameters the encoder computes at a time; bounds the memory and does not affect the file."""
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


class DecodeTask(NamedTuple):
    """One image to decode."""

    reader: Reader
    height: int
    """Rows of latents."""
    width: int
    """Columns of latents."""
    z_hat: Tensor | None
    """(N, ceil(height / 4), ceil(width / 4)) int32; None without side information."""
    span: LatentRange
    """Range of the latents, as stated in the header."""


class LatentCoder:
    """Writes and reads latents.

    Args:
        h_s: exact hyper-synthesis; None on the context rung.
        context: exact g_cm and g_ep; None on rungs without context.
        tables: converts raw parameters to tables.
    """

    def __init__(
        self, h_s: ExactHyperSynthesis | None, context: ExactContextNetwork | None, tables: LatentTables
    ) -> None:
        self.h_s, self.context, self.tables = h_s, context, tables
        network = h_s if h_s is not None else context
        assert network is not None
        self.device = network.device

    def layers(self) -> Iterator[FixedPointLayer]:
        """Yield all layers that the symbols depend on, for the fingerprint."""
        if self.h_s is not None:
            yield from self.h_s.layers
        if self.context is not None:
            yield from (self.context.context, *self.context.layers)
            yield from [] if self.context.from_psi is None else [self.context.from_psi]

    def write(self, writer: Writer, y_hat: Tensor, z_hat: Tensor | None) -> None:
        """Append latents (M, h, w) int32."""
        with full_precision(self.device):
            self._write(writer, y_hat, z_hat)

    def _write(self, writer: Writer, y_hat: Tensor, z_hat: Tensor | None) -> None:
        num_latents, height, width = y_hat.shape
        span = LatentRange(int(y_hat.min()), int(y_hat.max()))
        frame = _Frame(self, [(height, width)], [z_hat], span)
        symbols = torch.empty(height * width, num_latents, dtype=torch.int32)
        symbols[frame.schedule.ranks[0]] = y_hat.flatten(1).T
        frame.put(0, symbols)
        for steps in _chunks(frame.schedule.steps):
            start, stop = steps[0].start, steps[-1].stop
            windows = self.tables.windows(frame.raw(start, stop).cpu())
            values = symbols[start:stop].numpy().ravel()
            for step in steps:
                part = slice((step.start - start) * num_latents, (step.stop - start) * num_latents)
                self._write_step(writer, values[part], _part(windows, part), span)

    def read(self, tasks: Sequence[DecodeTask], check: Callable[[], None] = lambda: None) -> list[Tensor]:
        """Read the next latents of each image, (M, height, width) int32 each; the images advance in lockstep.

        Args:
            tasks: of the images.
            check: called between steps; may raise.

        Raises:
            BitstreamError: if a payload does not decode, or its latents are out of range.
        """
        with full_precision(self.device):
            return self._read(tasks, check)

    def _read(self, tasks: Sequence[DecodeTask], check: Callable[[], None]) -> list[Tensor]:
        num_latents = self.tables.num_latents
        span = LatentRange(min(task.span.lowest for task in tasks), max(task.span.highest for task in tasks))
        frame = _Frame(self, [(task.height, task.width) for task in tasks], [task.z_hat for task in tasks], span)
        with ThreadTuner() as tuner:
            for steps in frame.schedule.steps:
                tuner.step()
                check()
                start = steps[0].start
                windows = self.tables.windows(frame.raw(start, steps[-1].stop).cpu())
                for step in steps:
                    part = slice((step.start - start) * num_latents, (step.stop - start) * num_latents)
                    values = self._read_step(tasks[step.image], _part(windows, part))
                    frame.put(step.start, torch.from_numpy(values).view(-1, num_latents))
        return [frame.latents(image, task.height, task.width) for image, task in enumerate(tasks)]

    def _write_step(self, writer: Writer, values: IntArray, windows: Windows, span: LatentRange) -> None:
        for kind, chosen in _kinds(windows):
            escape = WIDTHS[kind] - 1
            indices = values[chosen] - windows.lowest[chosen]
            outside = (indices < 0) | (indices >= escape)
            indices[outside] = escape
            for first, part in _limited(chosen, WIDTHS[kind]):
                writer.write_rows(indices[first : first + len(part)], self.tables.masses(windows, part, kind))
            writer.write_uniform(values[chosen[outside]] - np.int32(span.lowest), span.size)

    def _read_step(self, task: DecodeTask, windows: Windows) -> IntArray:
        values = windows.lowest.copy()
        for kind, chosen in _kinds(windows):
            parts = [task.reader.read_rows(self.tables.masses(windows, part, kind))
                     for _, part in _limited(chosen, WIDTHS[kind])]  # fmt: skip
            indices = parts[0] if len(parts) == 1 else np.concatenate(parts)
            values[chosen] += indices
            outside = indices == WIDTHS[kind] - 1
            if outside.any():
                escaped = task.reader.read_uniform(int(outside.sum()), task.span.size)
                values[chosen[outside]] = escaped + np.int32(task.span.lowest)
        return values


class _Frame:
    """Latents of several images in coding order, and the raw parameters that they determine.

    Args:
        shapes: height and width of each map of latents.
        z_hats: side information of each image; None without.
        span: range of the latents that will be put in.
    """

    def __init__(
        self, coder: LatentCoder, shapes: Sequence[tuple[int, int]], z_hats: Sequence[Tensor | None], span: LatentRange
    ) -> None:
        self.context = coder.context
        self.schedule: Schedule = schedule(shapes, self.context.offsets if self.context is not None else [])
        self.taps = self.schedule.taps.to(coder.device)
        count = sum(height * width for height, width in shapes)
        num_pieces = 1 if max(-span.lowest, span.highest) <= LATENT_RADIX // 2 else 2
        # Row 0 represents all positions outside the images.
        self.y = torch.zeros(num_pieces, count + 1, coder.tables.num_latents, dtype=torch.float32, device=coder.device)
        self.units = torch.tensor([[1.0], [LATENT_RADIX]], dtype=torch.float32, device=coder.device)[:num_pieces]
        self.from_psi: Tensor | None = None
        for ranks, (height, width), z_hat in zip(self.schedule.ranks, shapes, z_hats, strict=True):
            if coder.h_s is None or z_hat is None:
                continue
            for first, psi in coder.h_s.strips(z_hat, height, width):
                rows = self.context.precompute(psi) if self.context is not None else to_raw(psi)
                if self.from_psi is None:
                    self.from_psi = rows.new_empty(count, rows.shape[1])
                self.from_psi[ranks[first * width : first * width + len(rows)].to(coder.device)] = rows

    def raw(self, start: int, stop: int) -> Tensor:
        """Compute the raw parameters of positions by rank: (stop - start, outputs) float32, in steps of 2^-12."""
        from_psi = self.from_psi[start:stop] if self.from_psi is not None else None
        if self.context is None:
            assert from_psi is not None
            return from_psi
        taps = self.taps[start:stop].flatten()
        pieces = [
            Rows(piece.index_select(0, taps).view(stop - start, -1), unit)
            for piece, unit in zip(self.y, self.units, strict=True)
        ]
        return self.context.raw(pieces, from_psi)

    def put(self, start: int, symbols: Tensor) -> None:
        """Insert latents (P, M) int32 at ranks from `start` on, so that later positions can use them as context."""
        rows = slice(start + 1, start + 1 + len(symbols))
        self.y[0, rows] = symbols
        if len(self.y) == 2:
            torch.mul(self.y[0, rows], 1 / LATENT_RADIX, out=self.y[1, rows]).round_()
            self.y[0, rows].sub_(self.y[1, rows], alpha=LATENT_RADIX)

    def latents(self, image: int, height: int, width: int) -> Tensor:
        """Return the latents of an image, (M, height, width) int32."""
        rows = self.schedule.ranks[image].to(self.y.device) + 1
        y_hat = self.y[0, rows].int()
        if len(self.y) == 2:
            y_hat += LATENT_RADIX * self.y[1, rows].int()
        return y_hat.cpu().T.reshape(-1, height, width)


def _part(windows: Windows, part: slice) -> Windows:
    return Windows(windows.kind[part], windows.lowest[part], windows.source[..., part])


def _kinds(windows: Windows) -> Iterator[tuple[int, Index]]:
    """Yield each kind of window that occurs, with the latents that have it."""
    for kind in range(len(WIDTHS)):
        chosen = (windows.kind == kind).nonzero()[0]
        if len(chosen):
            yield kind, chosen


def _limited(chosen: Index, width: int) -> Iterator[tuple[int, Index]]:
    """Split `chosen` into parts whose tables have at most `MAX_CELLS` entries; yield each with its start."""
    size = max(1, MAX_CELLS // width)
    for first in range(0, len(chosen), size):
        yield first, chosen[first : first + size]


def _chunks(steps: list[list[Step]]) -> Iterator[list[Step]]:
    """Group the steps of a single image into runs of about `CHUNK` positions."""
    run: list[Step] = []
    for (step,) in steps:
        run.append(step)
        if step.stop - run[0].start >= CHUNK:
            yield run
            run = []
    if run:
        yield run
