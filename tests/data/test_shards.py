"""Folders, files and archives of photographs become shards: the same input gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.data.index import DataError, ShardIndex, count_by_reason
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.data.urls import expand_shards
from tests.support.photo_shards import PHOTOS, SMALL, members, noise_photo


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with two good photographs, their copies, and everything that must be left out."""
    folder = tmp_path / "mixed"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    noise_photo(0).save(folder / "plain.jpg", quality=95)
    noise_photo(1).save(folder / "deep" / "er" / "lossless.PNG")
    noise_photo(1).save(folder / "same_pixels.bmp")
    shutil.copy(folder / "plain.jpg", folder / "deep" / "same_file.jpeg")
    noise_photo(2, 31, 80).save(folder / "narrow.png")
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "cut.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:2000])
    noise_photo(3).save(folder / "clip.gif", save_all=True, append_images=[noise_photo(4)])
    (folder / "notes.txt").write_text("ignored")
    noise_photo(5).save(folder / ".hidden" / "thumbnail.jpg")
    noise_photo(5).save(folder / "._resource.jpg")
    return folder


def test_left_out_photographs_are_counted_and_named(mixed: Path, tmp_path: Path) -> None:
    report = write_shards([mixed], tmp_path / "out", SMALL)
    assert report.num_samples == 2
    assert count_by_reason(report.skipped) == {"broken": 4, "small": 1, "large": 0, "duplicate": 2}
    reasons = {skipped.name: skipped.reason for skipped in report.skipped}
    assert {name for name, reason in reasons.items() if reason == "broken"} == {
        "empty.jpg", "text.png", "cut.jpg", "clip.gif"
    }  # fmt: skip
    assert reasons["narrow.png"] == "small"
    details = {skipped.name: skipped.detail for skipped in report.skipped}
    assert details["narrow.png"] == "31x80, under 32 pixels"
    assert "2 frames" in details["clip.gif"]
    assert "truncated" in details["cut.jpg"]
    content = json.loads((tmp_path / "out" / "index.json").read_text())
    assert content["num_skipped"] == {"broken": 4, "small": 1, "large": 0, "duplicate": 2}
    assert {entry["name"] for entry in content["skipped"]} == set(reasons)


def test_the_index_matches_the_shards(tmp_path: Path) -> None:
    report = write_shards([PHOTOS / "val"], tmp_path / "out", ShardOptions(shard_samples=3))
    index = ShardIndex.load(tmp_path / "out")
    assert [shard.samples for shard in index.shards] == [3, 1]
    for shard in index.shards:
        data = (tmp_path / "out" / shard.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
    pixels = 0
    for path in (PHOTOS / "val").glob("*.jpg"):
        with Image.open(path) as image:
            pixels += image.width * image.height
    assert index.pixels == report.num_pixels == pixels
    assert report.num_bytes == sum(shard.bytes for shard in index.shards)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {s.name for s in index.shards} | {"index.json"}


def test_the_same_photographs_give_the_same_bytes_in_any_place_at_any_time(mixed: Path, tmp_path: Path) -> None:
    write_shards([mixed], tmp_path / "a", SMALL, workers=1)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(mixed, elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (time.time() + 1e6, 1e9))
    write_shards([elsewhere], tmp_path / "b", SMALL, workers=3)
    for name in ("index.json", "shard-000000.tar"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_seed_orders_the_photographs(tmp_path: Path) -> None:
    orders = {}
    for seed in (0, 1):
        write_shards([PHOTOS / "train"], tmp_path / str(seed), ShardOptions(seed=seed))
        orders[seed] = [name.split("_", 1)[1] for name in members(tmp_path / str(seed))]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(p.name for p in (PHOTOS / "train").glob("*.jpg"))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_without_shuffling_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    write_shards([PHOTOS / "val"], tmp_path / "out", ShardOptions(shuffle=False))
    names = ["00000000_dogs.jpg", "00000001_neon.jpg", "00000002_peaks.jpg", "00000003_stonehenge.jpg"]
    assert list(members(tmp_path / "out")) == names


def test_shards_are_cut_by_bytes_too(tmp_path: Path) -> None:
    options = ShardOptions(shard_bytes=600_000)
    write_shards([PHOTOS / "train"], tmp_path / "out", options)
    index = ShardIndex.load(tmp_path / "out")
    assert len(index.shards) > 10
    assert sum(shard.samples for shard in index.shards) == 36
    for shard in index.shards:
        assert shard.bytes <= 600_000 + 1024 * shard.samples + 10_240
    assert [name.split("_")[0] for name in members(tmp_path / "out")] == [f"{i:08d}" for i in range(36)]


def test_archives_are_read_like_folders(mixed: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(mixed, arcname=".")
    from_folder = write_shards([mixed], tmp_path / "a", SMALL)
    from_archive = write_shards([tmp_path / "photos.tar"], tmp_path / "b", SMALL)
    assert from_archive.num_samples == from_folder.num_samples == 2
    assert count_by_reason(from_archive.skipped) == count_by_reason(from_folder.skipped)
    again = write_shards([tmp_path / "a"], tmp_path / "c", SMALL)
    assert again.num_samples == 2
    assert sorted(members(tmp_path / "c").values()) == sorted(members(tmp_path / "a").values())


def test_a_truncated_archive_gives_what_it_holds_and_is_named(tmp_path: Path) -> None:
    write_shards([PHOTOS / "val"], tmp_path / "whole")
    data = (tmp_path / "whole" / "shard-000000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) * 6 // 10])
    report = write_shards([tmp_path / "cut.tar"], tmp_path / "out")
    assert report.num_samples == 2
    names = [skipped.name for skipped in report.skipped]
    assert "cut.tar" in names
    assert {skipped.reason for skipped in report.skipped} == {"broken"}


def test_progress_is_reported_after_every_photograph(mixed: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_shards([mixed], tmp_path / "out", SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 9) for i in range(1, 10)]


def test_an_unusable_source_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="gone: no such file or folder"):
        write_shards([PHOTOS / "val", tmp_path / "gone"], tmp_path / "out")
    with pytest.raises(DataError, match="empty: no photographs found"):
        write_shards([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(DataError, match="no source: no photographs found"):
        write_shards([], tmp_path / "out")
    with pytest.raises(DataError, match=r"no usable photograph among 4: 0 broken, 4 with a side under min_side=2000"):
        write_shards([PHOTOS / "val"], tmp_path / "out", ShardOptions(min_side=2000))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    "options",
    [
        ShardOptions(min_side=0),
        ShardOptions(max_side=100),
        ShardOptions(quality=101),
        ShardOptions(tile=300),
        ShardOptions(part=2),
        ShardOptions(shard_samples=0),
        ShardOptions(shard_bytes=0),
    ],
)
def test_an_option_out_of_range_is_named(tmp_path: Path, options: ShardOptions) -> None:
    [changed] = [name for name in options._fields if getattr(options, name) != getattr(ShardOptions(), name)]
    with pytest.raises(DataError, match=f"^{changed}="):
        write_shards([PHOTOS / "val"], tmp_path / "out", options)


def test_parts_of_a_folder_together_are_all_of_it_and_train_as_one(mixed: Path, tmp_path: Path) -> None:
    whole = write_shards([PHOTOS / "train"], tmp_path / "whole", ShardOptions(shard_samples=10))
    parts = [ShardOptions(shard_samples=10, part=part, num_parts=2) for part in (1, 2)]
    reports = [write_shards([PHOTOS / "train"], tmp_path / f"part-{o.part}", o) for o in parts]
    assert [report.num_samples for report in reports] == [18, 18]
    joined = [data for part in (1, 2) for data in members(tmp_path / f"part-{part}").values()]
    assert sorted(joined) == sorted(members(tmp_path / "whole").values())
    assert len(joined) == whole.num_samples
    shards = expand_shards([str(tmp_path / f"part-{part}") for part in (1, 2)], "data.train")
    assert len(shards.urls) == 4
    with pytest.raises(DataError, match="part 30/30: has no photographs"):
        write_shards([mixed], tmp_path / "none", SMALL._replace(part=30, num_parts=30))
