"""Cuts a map that is too large for memory into overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jahp_pl.strides import HYPER_REACH, HYPER_STRIDE, REACH, STRIDE


def halo_of(reach: int, stride: int) -> int:
    """Return how many positions around a tile must be computed and discarded.

    Args:
        reach: receptive field radius of the network on its finer side.
        stride: positions on the finer side per position of the tile.
    """
    return -(-reach // stride)


HALO = halo_of(REACH, STRIDE)
"""Latents around a tile of the paper's g_a or g_s."""
HYPER_HALO = halo_of(HYPER_REACH, HYPER_STRIDE)
"""Hyper-latents around a tile of the paper's h_a."""
MIN_TILE_SIDE = 8
"""Shortest side of a tile without its halo; below it, most of the work would be halo."""


class TileSpan(NamedTuple):
    """Extent of one tile along one axis."""

    start: int
    stop: int
    """The tile provides the result at [start, stop)."""
    low: int
    high: int
    """The tile is computed from [low, high)."""

    @property
    def kept(self) -> slice:
        """The slice of [low, high) that is [start, stop)."""
        return slice(self.start - self.low, self.stop - self.low)

    def source(self, stride: int) -> slice:
        """Return [low, high) in a map with `stride` positions per position of the tile."""
        return slice(stride * self.low, stride * self.high)


def cut_spans(length: int, side: int, halo: int) -> list[TileSpan]:
    """Cut an axis of `length` positions into pieces of `side`, the last of which may be shorter.

    Each piece has up to `halo` further positions on either side, fewer at the ends of the axis.
    """
    starts = range(0, length, side)
    ends = [(start, min(start + side, length)) for start in starts]
    return [TileSpan(start, stop, max(start - halo, 0), min(stop + halo, length)) for start, stop in ends]


def tiles(height: int, width: int, side: tuple[int, int], halo: int) -> Iterator[tuple[TileSpan, TileSpan]]:
    """Cut a map of (height, width) positions into tiles, and yield the rows and columns of each, in raster order.

    Args:
        height, width: size of the map.
        side: height and width of a tile without its halo.
        halo: positions around each tile that are computed and discarded.
    """
    for rows in cut_spans(height, side[0], halo):
        for columns in cut_spans(width, side[1], halo):
            yield rows, columns


def choose_tile_size(height: int, width: int, halo: int, fits: Callable[[int, int], bool]) -> tuple[int, int]:
    """Choose the height and width of tiles, without halo, that minimize the work.

    Args:
        height, width: size of the whole map in positions.
        halo: positions around each tile that are computed and discarded.
        fits: returns whether a tile of that height and width, halo included, fits the memory. It must be monotone, and
            true for `MIN_TILE_SIDE` with its halo.
    """
    if fits(height, width):
        return height, width
    best: tuple[int, tuple[int, int]] | None = None
    for num_columns in range(1, _max_pieces(width) + 1):
        column = -(-width // num_columns)
        low, high = 1, _max_pieces(height)
        if not fits(_side_with_halo(height, high, halo), min(column + 2 * halo, width)):
            continue
        while low < high:  # finds the fewest rows of tiles that fit
            middle = (low + high) // 2
            row_fits = fits(_side_with_halo(height, middle, halo), min(column + 2 * halo, width))
            low, high = (low, middle) if row_fits else (middle + 1, high)
        row = -(-height // low)
        work = low * num_columns * (row + 2 * halo) * (column + 2 * halo)
        if best is None or work < best[0]:
            best = work, (row, column)
    assert best is not None
    return best[1]


def _max_pieces(length: int) -> int:
    """Return the largest number of pieces along an axis."""
    return -(-length // MIN_TILE_SIDE)


def _side_with_halo(length: int, number: int, halo: int) -> int:
    """Return the side of one of `number` equal pieces of an axis, halo included."""
    return min(-(-length // number) + 2 * halo, length)
