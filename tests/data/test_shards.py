"""Folders, files and archives of photographs become shards: the same input gives the same bytes, all or none."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jahp_pl.data.index import DataError, ShardIndex, count_by_reason
from jahp_pl.data.prepare import ShardOptions, tile_spans
from jahp_pl.data.shards import write_shards
from jahp_pl.data.urls import expand_shards
from jahp_pl.images.io import decode_rgb

PHOTOS = Path(__file__).parents[2] / "data" / "photos"
SMALL = ShardOptions(min_side=32)


def members(out: Path) -> dict[str, bytes]:
    """Map the name of every member of every shard to its content, in order."""
    found = {}
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for info in tar:
                content = tar.extractfile(info)
                assert content is not None
                found[info.name] = content.read()
    return found


def photo(seed: int = 0, width: int = 80, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with two good photographs, their copies, and everything that must be left out."""
    folder = tmp_path / "mixed"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    photo(0).save(folder / "plain.jpg", quality=95)
    photo(1).save(folder / "deep" / "er" / "lossless.PNG")
    photo(1).save(folder / "same_pixels.bmp")
    shutil.copy(folder / "plain.jpg", folder / "deep" / "same_file.jpeg")
    photo(2, 31, 80).save(folder / "narrow.png")
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "cut.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:2000])
    photo(3).save(folder / "clip.gif", save_all=True, append_images=[photo(4)])
    (folder / "notes.txt").write_text("ignored")
    photo(5).save(folder / ".hidden" / "thumbnail.jpg")
    photo(5).save(folder / "._resource.jpg")
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
    photo(0).save(folder / "rotated.jpg", exif=exif, quality=90)
    photo(1).convert("CMYK").save(folder / "cmyk.jpg")
    photo(2).convert("L").save(folder / "gray.png")
    photo(3).convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(np.arange(80 * 48, dtype=np.uint16).reshape(48, 80) * 17).save(folder / "deep.png")
    photo(5).save(folder / "photo.webp", quality=80)
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
    photo(0).save(tmp_path / "a.png")
    write_shards([tmp_path / "a.png"], tmp_path / "out", SMALL._replace(quality=90))
    [(name, data)] = members(tmp_path / "out").items()
    assert name.endswith(".jpg")
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.layer[0][1:3]) == ("JPEG", (80, 48), (1, 1))  # type: ignore[attr-defined]


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


def test_only_existing_shards_are_replaced_and_only_with_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_shards([PHOTOS / "val"], out, ShardOptions(shard_samples=1))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match="already contains shards"):
        write_shards([PHOTOS / "val"], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    write_shards([PHOTOS / "val"], out, overwrite=True)
    assert {path.name for path in out.iterdir()} == {"index.json", "shard-000000.tar"}
    (out / "diary.txt").write_text("mine")
    with pytest.raises(DataError, match="files other than shards"):
        write_shards([PHOTOS / "val"], out, overwrite=True)
    assert (out / "diary.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupt_leaves_nothing_behind_and_the_old_shards_in_place(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards([PHOTOS / "val"], tmp_path / "out", progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    write_shards([PHOTOS / "val"], tmp_path / "out", ShardOptions(shard_samples=1))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_shards([PHOTOS / "val"], tmp_path / "out", overwrite=True, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_interrupt_while_processes_are_started_is_not_lost(tmp_path: Path) -> None:
    """Python ignores exceptions of fork hooks, such as those of logging, where a signal handler may run."""
    code = (
        "import os, signal, sys\n"
        "from jahp_pl.data.shards import write_shards\n"
        "def interrupt(): os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.register_at_fork(after_in_parent=interrupt, after_in_child=interrupt)\n"
        "write_shards([sys.argv[1]], sys.argv[2], workers=2)\n"
    )
    command = [sys.executable, "-c", code, str(PHOTOS / "val"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.count("Traceback") == 1  # no worker shows another one
    assert list(tmp_path.iterdir()) == []


WRITE = """
import sys
from jahp_pl.data.index import DataError
from jahp_pl.data.shards import write_shards
try:
    write_shards([sys.argv[1]], sys.argv[2])
except DataError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """The file system has 2 MB, in its own namespace; the photographs take 7 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=2m tmpfs "{disk}" || exit 77; "$@"; code=$?; ls -A "{disk}"; exit $code'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", WRITE]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    done = subprocess.run([*command, PHOTOS / "train", disk / "out"], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        pytest.skip("may not mount a file system here")
    assert done.returncode == 2
    assert done.stderr == ""
    assert done.stdout == (
        f"{disk}/out: cannot be written (No space left on device); free some space or choose another folder\n"
    )


def test_a_limit_on_file_sizes_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE, PHOTOS / "train", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert done.returncode == 2
    assert done.stdout.endswith("cannot be written (File too large); free some space or choose another folder\n")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


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


def test_large_photographs_become_tiles_that_cover_them_and_are_mixed(tmp_path: Path) -> None:
    large = [photo(seed, 300, 200) for seed in range(4)]
    for number, image in enumerate(large):
        image.save(tmp_path / f"large{number}.png")
    photo(9, 80, 48).save(tmp_path / "small.jpg")
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
