"""Photographs are stored as they are or without loss, or smaller on request; large ones are cut into tiles."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jahp_pl.data.index import DataError, ShardIndex
from jahp_pl.data.prepare import ShardOptions, tile_spans
from jahp_pl.data.shards import write_shards
from jahp_pl.images.io import decode_rgb
from tests.support.photo_shards import PHOTOS, SMALL, members, noise_photo


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


def test_a_plain_jpeg_is_stored_unchanged(tmp_path: Path) -> None:
    report = write_shards([PHOTOS / "val"], tmp_path / "out")
    originals = {path.name: path.read_bytes() for path in (PHOTOS / "val").glob("*.jpg")}
    assert {name.split("_", 1)[1]: data for name, data in members(tmp_path / "out").items()} == originals
    assert report.num_as_is == 4


def test_everything_else_is_stored_without_loss(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_photo(0).save(folder / "rotated.jpg", exif=exif, quality=90)
    noise_photo(1).convert("CMYK").save(folder / "cmyk.jpg")
    noise_photo(2).convert("L").save(folder / "gray.png")
    noise_photo(3).convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(np.arange(80 * 48, dtype=np.uint16).reshape(48, 80) * 17).save(folder / "deep.png")
    noise_photo(5).save(folder / "photo.webp", quality=80)
    report = write_shards([folder], tmp_path / "out", SMALL)
    assert report.num_as_is == 0
    stored = {name.split("_", 1)[1]: data for name, data in members(tmp_path / "out").items()}
    assert len(stored) == 6
    for path in folder.iterdir():
        assert np.array_equal(decode_rgb(stored[f"{path.stem}.webp"]), decode_rgb(path)), path
    assert decode_rgb(stored["rotated.webp"]).shape == (80, 48, 3)


def test_large_photographs_are_scaled_down_on_request(tmp_path: Path) -> None:
    report = write_shards([PHOTOS / "val" / "peaks.jpg"], tmp_path / "out", ShardOptions(max_side=400))
    [(name, data)] = members(tmp_path / "out").items()
    assert name.endswith(".webp")
    assert decode_rgb(data).shape == (300, 400, 3)
    assert report.num_pixels == 300 * 400
    with pytest.raises(DataError, match="400x300, under 320 pixels"):
        write_shards([PHOTOS / "val" / "peaks.jpg"], tmp_path / "b", ShardOptions(min_side=320, max_side=400))


def test_a_quality_turns_lossless_storage_into_jpeg(tmp_path: Path) -> None:
    noise_photo(0).save(tmp_path / "a.png")
    write_shards([tmp_path / "a.png"], tmp_path / "out", SMALL._replace(quality=90))
    [(name, data)] = members(tmp_path / "out").items()
    assert name.endswith(".jpg")
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.layer[0][1:3]) == ("JPEG", (80, 48), (1, 1))  # type: ignore[attr-defined]


def test_a_photograph_too_long_for_jpeg_is_stored_as_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 65501, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "long.png", compress_level=0)
    write_shards([tmp_path / "long.png"], tmp_path / "out", SMALL._replace(quality=90), workers=1)
    [(name, data)] = members(tmp_path / "out").items()
    assert name.endswith(".png")
    assert np.array_equal(decode_rgb(data), pixels)


@pytest.mark.parametrize("error", [OSError("encoder error -9"), MemoryError()])
def test_a_photograph_that_cannot_be_encoded_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in "ab":
        noise_photo(ord(name)).save(tmp_path / f"{name}.png")
    save = Image.Image.save

    def failing(image: Image.Image, *args: object, **options: object) -> None:
        monkeypatch.setattr(Image.Image, "save", save)
        raise error

    monkeypatch.setattr(Image.Image, "save", failing)
    report = write_shards([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", SMALL, workers=1)
    assert report.num_samples == 1
    assert [(one.name, one.reason, one.detail) for one in report.skipped] == [
        ("a.png", "broken", str(error) or "not enough memory")
    ]


def test_large_photographs_become_tiles_that_cover_them_and_are_mixed(tmp_path: Path) -> None:
    large = [noise_photo(seed, 300, 200) for seed in range(4)]
    for number, image in enumerate(large):
        image.save(tmp_path / f"large{number}.png")
    noise_photo(9, 80, 48).save(tmp_path / "small.jpg")
    sources = [*tmp_path.glob("*.png"), tmp_path / "small.jpg"]
    options = SMALL._replace(tile=96, shard_samples=7)
    report = write_shards(sources, tmp_path / "out", options)
    stored = members(tmp_path / "out")
    rows, columns = tile_spans(200, 96, 32), tile_spans(300, 96, 32)
    assert report.num_samples == len(stored) == 4 * len(rows) * len(columns) + 1
    assert report.num_as_is == 1
    assert ShardIndex.load(tmp_path / "out").pixels == sum(decode_rgb(data).size // 3 for data in stored.values())
    order = []
    for name, data in stored.items():
        if "large" in name:
            number, i, j = (int(part) for part in Path(name).stem.partition("large")[2].split("-"))
            (top, bottom), (left, right) = rows[i], columns[j]
            assert np.array_equal(decode_rgb(data), np.asarray(large[number])[top:bottom, left:right])
            order.append(number)
    assert sum(a != b for a, b in itertools.pairwise(order)) > len(order) / 2
    write_shards(sources, tmp_path / "again", options, workers=1)
    assert members(tmp_path / "again") == stored
    assert not (tmp_path / "out" / "tiles").exists()
