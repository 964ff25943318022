"""How a map too large for memory is cut into tiles that overlap, and how much memory a tile takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

HALO = 2
"""Latents (or hyper-latents) around a tile that are computed and dropped. Where a cut replaces an image's interior by
zeros, g_a, g_s and h_a are wrong up to 30 pixels (7 latents) from it."""
SMALLEST = 8
"""Shortest side of a tile without its halo: below, most of the work would be halo."""


class Span(NamedTuple):
    """One tile along one axis."""

    start: int
    stop: int
    """It fills [start, stop)."""
    low: int
    high: int
    """It is computed from [low, high)."""

    @property
    def kept(self) -> slice:
        """What of [low, high) is [start, stop)."""
        return slice(self.start - self.low, self.stop - self.low)


def spans(length: int, side: int) -> list[Span]:
    """Cut `length` into pieces of `side`, the last one as short as it has to be."""
    starts = range(0, length, side)
    ends = [(start, min(start + side, length)) for start in starts]
    return [Span(start, stop, max(start - HALO, 0), min(stop + HALO, length)) for start, stop in ends]


def tiles(height: int, width: int, side: tuple[int, int]) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of every tile."""
    for rows in spans(height, side[0]):
        for columns in spans(width, side[1]):
            yield rows, columns


def largest_side(height: int, width: int, fits: Callable[[int, int], bool]) -> tuple[int, int]:
    """Height and width of the tiles, without halo, that cost least work.

    Args:
        height, width: of the whole map.
        fits: whether a tile of that height and width, halo included, fits the memory; must hold for every smaller tile
            if it does for a larger one, and for `SMALLEST` with its halo.
    """
    if fits(height, width):
        return height, width
    best: tuple[int, tuple[int, int]] | None = None
    for num_columns in range(1, _most(width) + 1):
        column = -(-width // num_columns)
        low, high = 1, _most(height)
        if not fits(_side_of(height, high), min(column + 2 * HALO, width)):
            continue
        while low < high:  # the fewest rows of tiles that fit
            middle = (low + high) // 2
            row_fits = fits(_side_of(height, middle), min(column + 2 * HALO, width))
            low, high = (low, middle) if row_fits else (middle + 1, high)
        row = -(-height // low)
        work = low * num_columns * (row + 2 * HALO) * (column + 2 * HALO)
        if best is None or work < best[0]:
            best = work, (row, column)
    assert best is not None
    return best[1]


def _most(length: int) -> int:
    return -(-length // SMALLEST)


def _side_of(length: int, number: int) -> int:
    return min(-(-length // number) + 2 * HALO, length)
