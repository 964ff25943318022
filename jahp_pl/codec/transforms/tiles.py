"""How a map too large for memory is cut into tiles that overlap, and how much memory a tile takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

HYPER_HALO = 2
"""Hyper-latents around a tile that are computed and dropped. Where a cut replaces an image's interior by zeros, h_a is
wrong up to 7 latents from it, as g_a and g_s are up to `transforms.Transforms.reach` pixels."""
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


def spans(length: int, side: int, halo: int) -> list[Span]:
    """Cut `length` into pieces of `side`, the last one as short as it has to be, each with its halo."""
    starts = range(0, length, side)
    ends = [(start, min(start + side, length)) for start in starts]
    return [Span(start, stop, max(start - halo, 0), min(stop + halo, length)) for start, stop in ends]


def tiles(height: int, width: int, side: tuple[int, int], halo: int) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of every tile."""
    for rows in spans(height, side[0], halo):
        for columns in spans(width, side[1], halo):
            yield rows, columns


def largest_side(height: int, width: int, halo: int, fits: Callable[[int, int], bool]) -> tuple[int, int]:
    """Height and width of the tiles, without halo, that cost least work.

    Args:
        height, width: of the whole map.
        halo: positions around each tile that are computed and dropped.
        fits: whether a tile of that height and width, halo included, fits the memory; must hold for every smaller tile
            if it does for a larger one, and for `SMALLEST` with its halo.
    """
    if fits(height, width):
        return height, width
    best: tuple[int, tuple[int, int]] | None = None
    for num_columns in range(1, _most(width) + 1):
        column = -(-width // num_columns)
        low, high = 1, _most(height)
        if not fits(_side_of(height, high, halo), min(column + 2 * halo, width)):
            continue
        while low < high:  # the fewest rows of tiles that fit
            middle = (low + high) // 2
            row_fits = fits(_side_of(height, middle, halo), min(column + 2 * halo, width))
            low, high = (low, middle) if row_fits else (middle + 1, high)
        row = -(-height // low)
        work = low * num_columns * (row + 2 * halo) * (column + 2 * halo)
        if best is None or work < best[0]:
            best = work, (row, column)
    assert best is not None
    return best[1]


def _most(length: int) -> int:
    return -(-length // SMALLEST)


def _side_of(length: int, number: int, halo: int) -> int:
    return min(-(-length // number) + 2 * halo, length)
