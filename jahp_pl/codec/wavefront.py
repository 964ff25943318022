"""The order in which positions are coded: wavefronts, each of which needs only latents of earlier ones.

With the 5x5 causal mask, the latent at (i, j) depends on rows i-1 and i-2 up to column j+2 and on two columns to its
left. Number positions by t = j + 3 i: every dependency has a smaller t, so all positions of one t are decoded together,
in W + 3 (H - 1) steps instead of W H. Encoder and decoder code symbols in the same order: by t, then by row, then by
channel.

The latents before a position in this order are all its context sees, so the encoder, which has them all, computes every
parameter in a few large products, and the decoder one wavefront at a time with the same function.

    t of each position:   0  1  2  3  4
                          3  4  5  6  7
                          6  7  8  9 10
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from jahp_pl.codec.coder import Reader, Writer
from jahp_pl.codec.exact import ExactContextNetwork, ExactHyperSynthesis
from jahp_pl.codec.tables import LatentTables, exact_bits

CHUNK = 4096
"""Positions whose parameters the encoder computes at a time; bounds memory, does not change the file."""


def wavefronts(height: int, width: int, reach: int) -> list[Tensor]:
    """Groups of positions in coding order.

    Args:
        height, width: of the map of latents.
        reach: of the causal mask, kernel // 2: 2 for 5x5; 0 means no context, hence a single group of all positions.

    Returns:
        Raster indices i * width + j, int64, each position in exactly one group.
    """
    positions = torch.arange(height * width)
    if reach == 0:
        return [positions]
    time = positions % width + (reach + 1) * (positions // width)
    order = torch.argsort(time, stable=True)
    sizes = torch.bincount(time)
    return [group for group in torch.split(order, sizes.tolist()) if len(group)]


class LatentCoder:
    """Codes y_hat under p(y_hat | z_hat, y_hat so far), for every rung that has such a density.

    Args:
        h_s: exact hyper-synthesis; None on the context rung.
        context: exact g_cm and g_ep; None for the rungs without context.
        tables: symbol models of raw parameters.
    """

    def __init__(
        self, h_s: ExactHyperSynthesis | None, context: ExactContextNetwork | None, tables: LatentTables
    ) -> None:
        self.h_s, self.context, self.tables = h_s, context, tables
        self.reach = context.reach if context is not None else 0

    def write(self, writer: Writer, y_hat: Tensor, z_hat: Tensor | None) -> float:
        """Append (M, h, w) int32 in wavefront order; returns the bits under the exact parameters."""
        _, height, width = y_hat.shape
        frame = _Frame(self, height, width, z_hat)
        frame.fill(y_hat)
        symbols = y_hat.flatten(1).T.contiguous()  # (positions, M)
        lowest, highest = int(y_hat.min()), int(y_hat.max())
        order = torch.cat(wavefronts(height, width, self.reach))
        bits = 0.0
        for positions in torch.split(order, min(CHUNK, self.tables.chunk(lowest, highest))):
            chosen = symbols[positions].flatten().numpy()
            model = self.tables.models(frame.raw(positions), lowest, highest)
            writer.write(chosen, model)
            bits += exact_bits(chosen, model)
        return bits

    def read(self, reader: Reader, height: int, width: int, z_hat: Tensor | None, lowest: int, highest: int) -> Tensor:
        """The next (M, height, width) int32, whose values lie from lowest to highest.

        Raises:
            BitstreamError: the payload does not decode.
        """
        frame = _Frame(self, height, width, z_hat)
        y_hat = torch.zeros(height * width, self.tables.num_latents, dtype=torch.int32)
        limit = self.tables.chunk(lowest, highest)
        with _one_thread():
            for wavefront in wavefronts(height, width, self.reach):
                # Positions of one wavefront do not see each other, so it may be read in parts.
                for positions in torch.split(wavefront, limit):
                    model = self.tables.models(frame.raw(positions), lowest, highest)
                    read = torch.from_numpy(reader.read(model)).view(len(positions), -1)
                    y_hat[positions] = read
                    frame.put(positions, read)
        return y_hat.T.reshape(-1, height, width)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A wavefront is too little work to share: a second thread gains a fifth on an idle machine, and where the other
    core is busy, waiting for it at every product makes decoding five times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Frame:
    """Raw parameters of one image by position, given the latents put into it so far."""

    def __init__(self, coder: LatentCoder, height: int, width: int, z_hat: Tensor | None) -> None:
        self.context = coder.context
        self.height, self.width, self.reach = height, width, coder.reach
        psi = coder.h_s(z_hat, height, width) if coder.h_s is not None and z_hat is not None else None
        self.stride = width + 2 * self.reach
        if self.context is not None:
            self.from_psi = self.context.precompute(psi) if psi is not None else None
            rows = height + 2 * self.reach
            self.y = torch.zeros(rows * self.stride, coder.tables.num_latents, dtype=torch.float64)
        else:
            self.from_psi = psi

    def raw(self, positions: Tensor) -> Tensor:
        """(P,) raster indices -> (P, outputs) float64, steps of 2^-12."""
        from_psi = self.from_psi[positions] if self.from_psi is not None else None
        if self.context is None:
            assert from_psi is not None
            return from_psi
        return self.context.raw(self.y, self._padded(positions), self.stride, from_psi)

    def put(self, positions: Tensor, symbols: Tensor) -> None:
        """Make (P, M) latents visible to later positions."""
        if self.context is not None:
            self.y[self._padded(positions)] = symbols.double()

    def fill(self, y_hat: Tensor) -> None:
        """Make all latents (M, h, w) visible; causality is in the taps."""
        self.put(torch.arange(self.height * self.width), y_hat.flatten(1).T)

    def _padded(self, positions: Tensor) -> Tensor:
        rows, columns = positions // self.width + self.reach, positions % self.width + self.reach
        return rows * self.stride + columns
