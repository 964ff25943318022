"""Plans the coding order of positions: wavefronts, each of which depends only on earlier ones.

With the 5x5 causal mask, the latent at (i, j) depends on rows i-1 and i-2 up to column j+2, and on two columns to its
left. With t = j + 3 i, every dependency has a smaller t, so all positions with the same t can be decoded together, in
W + 3 (H - 1) steps instead of W H.

    t of each position:   0  1  2  3  4
                          3  4  5  6  7
                          6  7  8  9 10

Several images advance in lockstep: a step takes the positions with the same t from each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jahp_pl.codec.arrays import IndexArray

OUTSIDE = 0
"""Row of the latents' buffer that represents all positions outside an image; it stays zero."""

RASTER_STEP = 1024
"""Positions per step if none depends on another; bounds the memory."""


class Step(NamedTuple):
    """Positions of one image in one step: ranks [start, stop) of the coding order."""

    image: int
    start: int
    stop: int


class CodingOrder(NamedTuple):
    """Coding order of the latents of several images.

    Positions are numbered by their rank in that order; row r + 1 of the latents' buffer holds the position of rank r.
    """

    steps: list[list[Step]]
    """The images of each step, in the given order; their ranks are consecutive."""
    ranks: list[IndexArray]
    """Per image (height * width,) int64: rank of each position in raster order."""
    taps: IndexArray
    """(positions, live taps) int64: rows of the latents' buffer that form the context of each position."""


def coding_order(shapes: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> CodingOrder:
    """Plan the coding order of images.

    Args:
        shapes: height and width of each image's map of latents.
        offsets: row and column of each live tap of the causal mask, relative to the position; if empty, there is no
            context, and steps consist of `RASTER_STEP` positions in raster order.
    """
    lag = 1 + max((column for _, column in offsets), default=-1)  # 3 for a 5x5 mask
    times = [_times(height, width, lag) for height, width in shapes]
    image = np.repeat(np.arange(len(times)), [len(time) for time in times])
    time = np.concatenate(times)
    order = np.argsort(time * len(shapes) + image, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    ranks = np.split(rank, np.cumsum([len(part) for part in times])[:-1])
    return CodingOrder(_steps(time[order], image[order]), ranks, _taps(shapes, ranks, offsets))


def _times(height: int, width: int, lag: int) -> IndexArray:
    positions = np.arange(height * width)
    return positions % width + lag * (positions // width) if lag else positions // RASTER_STEP


def _steps(time: IndexArray, image: IndexArray) -> list[list[Step]]:
    changes = np.flatnonzero((time[1:] != time[:-1]) | (image[1:] != image[:-1])) + 1
    bounds = [0, *changes.tolist(), len(time)]
    steps: list[list[Step]] = []
    last = None
    for start, stop, t, index in zip(bounds, bounds[1:], time[bounds[:-1]].tolist(), image[bounds[:-1]].tolist(),
                                     strict=False):  # fmt: skip
        if t != last:
            steps.append([])
            last = t
        steps[-1].append(Step(index, start, stop))
    return steps


def _taps(shapes: Sequence[tuple[int, int]], ranks: list[IndexArray], offsets: Sequence[tuple[int, int]]) -> IndexArray:
    reach = max((-row for row, _ in offsets), default=0)
    taps = np.empty((sum(len(rank) for rank in ranks), len(offsets)), dtype=np.int64)
    for (height, width), rank in zip(shapes, ranks, strict=True):
        rows = np.full((height + 2 * reach, width + 2 * reach), OUTSIDE)
        rows[reach : reach + height, reach : reach + width] = rank.reshape(height, width) + 1
        for tap, (row, column) in enumerate(offsets):
            seen = rows[reach + row :][:height, reach + column : reach + column + width]
            taps[rank, tap] = seen.ravel()
    return taps
