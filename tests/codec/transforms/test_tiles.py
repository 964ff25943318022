"""Tiles cover a map once, fit the memory and contain all their dependencies."""

from __future__ import annotations

import pytest

from jahp_pl.codec.transforms.tiles import MIN_TILE_SIDE, choose_tile_size, cut_spans, tiles

HALO = 2


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("side", [1, 8, 33, 200])
def test_spans_cover_a_length_once_and_see_their_surroundings(length: int, side: int) -> None:
    pieces = cut_spans(length, side, HALO)
    assert [i for piece in pieces for i in range(piece.start, piece.stop)] == list(range(length))
    for piece in pieces:
        assert (piece.low, piece.high) == (max(piece.start - HALO, 0), min(piece.stop + HALO, length))
        assert list(range(piece.low, piece.high))[piece.kept] == list(range(piece.start, piece.stop))


def test_a_map_that_fits_is_not_cut() -> None:
    side = choose_tile_size(100, 70, HALO, lambda height, width: height * width <= 7000)
    assert list(tiles(100, 70, side, HALO)) == [(*cut_spans(100, 100, HALO), *cut_spans(70, 70, HALO))]


@pytest.mark.parametrize("shape", [(1, 4096), (4096, 1), (13, 15), (17, 200), (300, 200), (1500, 2000)])
@pytest.mark.parametrize("area", [(MIN_TILE_SIDE + 2 * HALO) ** 2, 400, 5000])
def test_tiles_fit_with_their_halo(shape: tuple[int, int], area: int) -> None:
    side = choose_tile_size(*shape, HALO, lambda height, width: height * width <= area)
    for rows, columns in tiles(*shape, side, HALO):
        assert (rows.high - rows.low) * (columns.high - columns.low) <= area


def test_more_memory_means_less_work() -> None:
    def work(area: int) -> int:
        side = choose_tile_size(300, 200, HALO, lambda height, width: height * width <= area)
        return sum((r.high - r.low) * (c.high - c.low) for r, c in tiles(300, 200, side, HALO))

    done = [work(area) for area in (144, 400, 1600, 6400, 60000)]
    assert done == sorted(done, reverse=True)
    assert done[-1] == 300 * 200
    assert done[2] < 1.35 * 300 * 200
