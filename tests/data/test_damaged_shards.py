"""Unusable photographs and shards are skipped and counted, and streams without any other end in an error."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jahp_pl.data.pipeline import ValImage, WholeImages
from jahp_pl.data.shard_reader import ShardReader
from jahp_pl.data.urls import expand_shards
from tests.support.photo_shards import names, pack, photo_bytes, stream, take


def test_a_truncated_member_is_skipped_and_counted(tmp_path: Path) -> None:
    """A truncated photograph follows two intact ones, so each pass over the shard gives two crops and one skip."""
    whole = pack(tmp_path / "whole.tar", {f"{n}.jpg": photo_bytes(n) for n in ("moon", "dusk", "tower")})
    data = Path(whole).read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: data.index(photo_bytes("tower")[:500]) + 5000])
    samples = take(stream([str(tmp_path / "cut.tar")], buffer=1), 30)
    skipped = [photo for sample in samples for photo in sample.skipped]
    assert len(skipped) == 14  # a buffer of one passes each item on at once; the 15th follows the last crop
    assert {(photo.name, photo.reason) for photo in skipped} == {(str(tmp_path / "cut.tar"), "broken")}
    assert "tower.jpg" in skipped[0].detail


@pytest.mark.parametrize("where", ["in a header", "between members", "without end mark"])
def test_a_truncation_that_tarfile_mistakes_for_the_end_is_counted_too(tmp_path: Path, where: str) -> None:
    whole = pack(tmp_path / "whole.tar", {f"{n}.jpg": photo_bytes(n) for n in ("moon", "dusk")})
    data = Path(whole).read_bytes()
    second = 512 + -(-len(photo_bytes("moon")) // 512) * 512
    end = {"in a header": second + 100, "between members": second, "without end mark": len(data.rstrip(b"\0"))}[where]
    end = -(-end // 512) * 512 if where == "without end mark" else end
    (tmp_path / "cut.tar").write_bytes(data[:end])
    [*photos, rest] = WholeImages([str(tmp_path / "cut.tar")])
    assert len(photos) == (2 if where == "without end mark" else 1)
    assert rest.data is None
    assert [photo.reason for photo in rest.skipped] == ["broken"]


def test_a_damaged_header_loses_the_rest_and_is_counted(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.tar", {f"{n}.jpg": photo_bytes(n) for n in ("moon", "dusk", "tower")})
    data = bytearray(Path(whole).read_bytes())
    data[512 + -(-len(photo_bytes("moon")) // 512) * 512 + 10] ^= 0xFF
    Path(whole).write_bytes(data)
    [first, rest] = WholeImages([whole])
    assert isinstance(first.data, ValImage)
    assert len(rest.skipped) == 1
    assert "moon.jpg" in rest.skipped[0].detail


def test_a_broken_photograph_is_skipped_and_counted(tmp_path: Path) -> None:
    files = {"a.jpg": photo_bytes("moon"), "b.jpg": photo_bytes("dusk")[:9000], "c.png": b"", "d.txt": b"not a photo"}
    samples = take(stream([pack(tmp_path / "x.tar", files)], buffer=1), 20)
    skipped = Counter(Path(photo.name).name for sample in samples for photo in sample.skipped)
    assert skipped == {"b.jpg": 19, "c.png": 19}


def test_photographs_smaller_than_the_crop_are_skipped_and_counted(tmp_path: Path) -> None:
    url = pack(tmp_path / "x.tar", {"falcon.jpg": photo_bytes("falcon"), "moon.jpg": photo_bytes("moon")})
    samples = take(stream([url], crop=272, buffer=1), 10)
    skipped = [photo for sample in samples for photo in sample.skipped]
    assert [(Path(p.name).name, p.reason, p.detail) for p in skipped] == [("falcon.jpg", "small", "400x266")] * 10


def test_crops_larger_than_every_photograph_end_in_an_error_that_names_them(tmp_path: Path) -> None:
    url = pack(tmp_path / "x.tar", {"moon.jpg": photo_bytes("moon")})
    [sample] = take(stream([url], crop=528), 5)
    assert sample.data is None
    assert sample.error is not None
    assert "no photograph is large enough for data.crop_size=528" in sample.error
    assert "moon.jpg with 512x512" in sample.error
    assert "\n" not in sample.error


def test_a_stream_of_broken_photographs_alone_ends_in_an_error(tmp_path: Path) -> None:
    [sample] = take(stream([pack(tmp_path / "x.tar", {"a.jpg": b"", "b.jpg": b"no"})]), 5)
    assert "1000 broken photographs in a row" in str(sample.error)


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"nothing to see"}])
def test_a_shard_without_photographs_ends_in_an_error_that_names_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    url = pack(tmp_path / "void.tar", files)
    for samples in (take(stream([url]), 5), list(WholeImages([url]))):
        assert "void.tar: this shard has no photographs; remove it" in str(samples[-1].error)


def test_shards_that_cannot_be_opened_end_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"this is not an archive" * 100)
    for url in (str(tmp_path / "gone.tar"), str(tmp_path / "no.tar"), "pipe:exit 3", "http://127.0.0.1:9/x.tar"):
        [*_, last] = take(stream([url], timeout=0.1), 5)
        assert f"{url}: no photograph in 10 shards in a row" in str(last.error)
        [*_, last] = WholeImages([url], reader=ShardReader(timeout=0.1))
        assert "no validation shard has a readable image" in str(last.error)
        assert "\n" not in str(last.error)


def test_a_shard_that_goes_missing_is_skipped_and_counted(train_shards: Path) -> None:
    urls = [*expand_shards([str(train_shards)], "data.train").urls, str(train_shards / "gone.tar")]
    skipped = [photo for sample in take(stream(urls), 200) for photo in sample.skipped]
    assert {photo.name for photo in skipped} == {str(train_shards / "gone.tar")}
    assert {photo.detail for photo in skipped} == {"No such file or directory"}


def test_a_broken_validation_image_is_counted_once_over_all_ranks(tmp_path: Path) -> None:
    files = {"a.jpg": photo_bytes("moon"), "b.jpg": b"broken", "c.jpg": photo_bytes("dusk")}
    url = pack(tmp_path / "x.tar", files)
    Path(url).write_bytes(Path(url).read_bytes()[:-20_000])
    for world_size in (1, 2, 3):
        samples = [d for rank in range(world_size) for d in WholeImages([url], 0, rank, world_size)]
        assert names(samples) == ["a"]
        assert len([photo for d in samples for photo in d.skipped]) == 2
