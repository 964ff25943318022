"""Large photographs are cut into tiles that hold every position of a crop once."""

from __future__ import annotations

import pytest

from jahp_pl.data.prepare import tile_spans


@pytest.mark.parametrize(
    ("length", "tile", "crop"), [(4000, 1024, 256), (3000, 1024, 256), (600, 512, 256), (256, 512, 256)]
)
def test_each_crop_position_is_in_exactly_one_tile_and_tiles_hold_equally_many(
    length: int, tile: int, crop: int
) -> None:
    held = [set(range(start, stop - crop + 1)) for start, stop in tile_spans(length, tile, crop)]
    assert sorted(place for one in held for place in one) == list(range(length - crop + 1))
    assert max(map(len, held)) - min(map(len, held)) <= 1
    assert all(stop - start <= tile for start, stop in tile_spans(length, tile, crop))
