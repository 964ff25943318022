"""Shards become endless crops, or whole images once each; unusable data is skipped and counted, or an error."""

from __future__ import annotations

import functools
import http.server
import io
import itertools
import random
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.data import shuffle
from jahp_pl.data.index import DataError
from jahp_pl.data.pipeline import CropOptions, CropStream, Delivery, ValImage, WholeImages
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shard_reader import Item, ShardReader
from jahp_pl.data.shards import write_shards
from jahp_pl.data.urls import expand_shards
from jahp_pl.images.io import decode_rgb

PHOTOS = Path(__file__).parents[2] / "data" / "photos"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled training photographs in four shards."""
    out = tmp_path_factory.mktemp("shards") / "train"
    write_shards([PHOTOS / "train"], out, ShardOptions(shard_samples=10))
    return out


def stream(
    urls: list[str],
    crop: int = 64,
    seed: int = 0,
    step: int = 0,
    rank: int = 0,
    buffer: int = 20,
    timeout: float = 30,
    **cuts: int,
) -> CropStream:
    return CropStream(urls, CropOptions(crop, **cuts), seed, step, rank, buffer, ShardReader(timeout))


def take(crops: CropStream, count: int) -> list[Delivery]:
    return list(itertools.islice(crops, count))


def same(a: list[Delivery], b: list[Delivery]) -> bool:
    return all(torch.equal(x.payload, y.payload) for x, y in zip(a, b, strict=True))  # type: ignore[arg-type]


def pack(path: Path, files: dict[str, bytes]) -> str:
    """Write a tar file as any other tool would."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def photo_bytes(name: str) -> bytes:
    return next(PHOTOS.glob(f"*/{name}.jpg")).read_bytes()


def test_crops_are_uint8_and_are_cut_from_the_photograph(tmp_path: Path) -> None:
    url = pack(tmp_path / "one.tar", {"denim.jpg": photo_bytes("denim")})
    original = decode_rgb(photo_bytes("denim"))
    places = {original[y, x : x + 64].tobytes(): (y, x) for y in range(449) for x in range(449)}
    flips: Counter[bool] = Counter()
    corners = set()
    for delivery in take(stream([url]), 40):
        crop = delivery.payload
        assert isinstance(crop, torch.Tensor)
        assert (crop.shape, crop.dtype) == ((3, 64, 64), torch.uint8)
        picture = crop.permute(1, 2, 0).numpy()
        flipped = picture[0].tobytes() not in places
        picture = picture[:, ::-1] if flipped else picture
        y, x = places[picture[0].tobytes()]
        assert np.array_equal(picture, original[y : y + 64, x : x + 64])
        flips[flipped] += 1
        corners.add((y, x))
    assert min(flips[False], flips[True]) >= 8
    assert len(corners) == 40
    assert min(y for y, _ in corners) < 150 < 300 < max(y for y, _ in corners)


def test_the_same_seed_gives_the_same_crops(shards: Path) -> None:
    urls = expand_shards([str(shards)], "data.train").urls
    assert expand_shards([str(shards / "index.json")], "data.train").urls == urls
    assert same(take(stream(urls), 40), take(stream(urls), 40))


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"rank": 1}])
def test_another_seed_step_or_rank_gives_other_crops(shards: Path, other: dict[str, int]) -> None:
    urls = expand_shards([str(shards)], "data.train").urls
    first = {d.payload.numpy().tobytes() for d in take(stream(urls), 40)}  # type: ignore[union-attr]
    second = {d.payload.numpy().tobytes() for d in take(stream(urls, **other), 40)}  # type: ignore[arg-type,union-attr]
    assert len(first) == len(second) == 40
    assert not first & second


def test_a_second_pass_continues_with_other_crops(shards: Path) -> None:
    crops = stream(expand_shards([str(shards)], "data.train").urls)
    assert not same(take(crops, 5), take(crops, 5))


def test_all_photographs_are_drawn_equally_often(tmp_path: Path) -> None:
    """Each photograph has a single color, so that a crop reveals its source."""
    (tmp_path / "in").mkdir()
    for i in range(12):
        Image.new("RGB", (64, 64), (i, i, i)).save(tmp_path / "in" / f"{i}.png")
    write_shards([tmp_path / "in"], tmp_path / "out", ShardOptions(min_side=16, shard_samples=4))
    urls = expand_shards([str(tmp_path / "out")], "data.train").urls
    drawn = Counter(int(d.payload[0, 0, 0]) for d in take(stream(urls, crop=16), 3000))  # type: ignore[index]
    assert len(drawn) == 12
    assert max(drawn.values()) <= 1.5 * min(drawn.values())


def test_a_truncated_member_is_skipped_and_counted(tmp_path: Path) -> None:
    """A truncated photograph follows two intact ones, so each pass over the shard gives two crops and one skip."""
    whole = pack(tmp_path / "whole.tar", {f"{n}.jpg": photo_bytes(n) for n in ("moon", "dusk", "tower")})
    data = Path(whole).read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: data.index(photo_bytes("tower")[:500]) + 5000])
    deliveries = take(stream([str(tmp_path / "cut.tar")], buffer=1), 30)
    skipped = [photo for delivery in deliveries for photo in delivery.skipped]
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
    assert rest.payload is None
    assert [photo.reason for photo in rest.skipped] == ["broken"]


def test_a_damaged_header_loses_the_rest_and_is_counted(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.tar", {f"{n}.jpg": photo_bytes(n) for n in ("moon", "dusk", "tower")})
    data = bytearray(Path(whole).read_bytes())
    data[512 + -(-len(photo_bytes("moon")) // 512) * 512 + 10] ^= 0xFF
    Path(whole).write_bytes(data)
    [first, rest] = WholeImages([whole])
    assert isinstance(first.payload, ValImage)
    assert len(rest.skipped) == 1
    assert "moon.jpg" in rest.skipped[0].detail


def test_a_broken_photograph_is_skipped_and_counted(tmp_path: Path) -> None:
    files = {"a.jpg": photo_bytes("moon"), "b.jpg": photo_bytes("dusk")[:9000], "c.png": b"", "d.txt": b"not a photo"}
    deliveries = take(stream([pack(tmp_path / "x.tar", files)], buffer=1), 20)
    skipped = Counter(Path(photo.name).name for delivery in deliveries for photo in delivery.skipped)
    assert skipped == {"b.jpg": 19, "c.png": 19}


def test_photographs_smaller_than_the_crop_are_skipped_and_counted(tmp_path: Path) -> None:
    url = pack(tmp_path / "x.tar", {"falcon.jpg": photo_bytes("falcon"), "moon.jpg": photo_bytes("moon")})
    deliveries = take(stream([url], crop=272, buffer=1), 10)
    skipped = [photo for delivery in deliveries for photo in delivery.skipped]
    assert [(Path(p.name).name, p.reason, p.detail) for p in skipped] == [("falcon.jpg", "small", "400x266")] * 10


def test_a_crop_as_large_as_the_photograph_fits(tmp_path: Path) -> None:
    url = pack(tmp_path / "x.tar", {"moon.jpg": photo_bytes("moon")})
    assert take(stream([url], crop=512), 1)[0].payload.shape == (3, 512, 512)  # type: ignore[union-attr]


def test_crops_larger_than_every_photograph_end_in_an_error_that_names_them(tmp_path: Path) -> None:
    url = pack(tmp_path / "x.tar", {"moon.jpg": photo_bytes("moon")})
    [delivery] = take(stream([url], crop=528), 5)
    assert delivery.payload is None
    assert delivery.error is not None
    assert "no photograph is large enough for data.crop_size=528" in delivery.error
    assert "moon.jpg with 512x512" in delivery.error
    assert "\n" not in delivery.error


def test_a_stream_of_broken_photographs_alone_ends_in_an_error(tmp_path: Path) -> None:
    [delivery] = take(stream([pack(tmp_path / "x.tar", {"a.jpg": b"", "b.jpg": b"no"})]), 5)
    assert "1000 broken photographs in a row" in str(delivery.error)


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"nothing to see"}])
def test_a_shard_without_photographs_ends_in_an_error_that_names_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    url = pack(tmp_path / "void.tar", files)
    for deliveries in (take(stream([url]), 5), list(WholeImages([url]))):
        assert "void.tar: this shard has no photographs; remove it" in str(deliveries[-1].error)


def test_shards_that_cannot_be_opened_end_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"this is not an archive" * 100)
    for url in (str(tmp_path / "gone.tar"), str(tmp_path / "no.tar"), "pipe:exit 3", "http://127.0.0.1:9/x.tar"):
        [*_, last] = take(stream([url], timeout=0.1), 5)
        assert f"{url}: no photograph in 10 shards in a row" in str(last.error)
        [*_, last] = WholeImages([url], reader=ShardReader(timeout=0.1))
        assert "no validation shard has a readable image" in str(last.error)
        assert "\n" not in str(last.error)


def test_a_shard_that_goes_missing_is_skipped_and_counted(shards: Path) -> None:
    urls = [*expand_shards([str(shards)], "data.train").urls, str(shards / "gone.tar")]
    skipped = [photo for delivery in take(stream(urls), 200) for photo in delivery.skipped]
    assert {photo.name for photo in skipped} == {str(shards / "gone.tar")}
    assert {photo.detail for photo in skipped} == {"No such file or directory"}


def test_the_shuffle_buffer_is_bounded_in_bytes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "_BUFFER_BYTES", 500_000)
    held = 0
    held_when_pulled = []

    def counted() -> Iterator[Item]:
        nonlocal held
        for item in ShardReader().read(expand_shards([str(shards)], "data.train").urls):
            held_when_pulled.append(held)
            held += shuffle.item_bytes(item)
            yield item

    for item in shuffle.shuffled(counted(), 1000, random.Random(0)):
        held -= shuffle.item_bytes(item)
    assert len(held_when_pulled) == 36
    assert 300_000 < max(held_when_pulled) <= 500_000


def test_keeping_decoded_photographs_changes_no_crop(shards: Path) -> None:
    urls = expand_shards([str(shards)], "data.train").urls
    kept = take(stream(urls), 60)
    assert same(kept, take(stream(urls, decoded_bytes=0), 60))


def val_shards(tmp_path: Path, count: int = 7) -> str:
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
    out = tmp_path / "val"
    write_shards([folder], out, ShardOptions(min_side=16, shuffle=False, shard_samples=3))
    return str(out)


def names(deliveries: list[Delivery]) -> list[str]:
    return [d.payload.name for d in deliveries if isinstance(d.payload, ValImage)]


def test_validation_images_are_whole_and_come_once_in_order(tmp_path: Path) -> None:
    deliveries = list(WholeImages(expand_shards([val_shards(tmp_path)], "data.val").urls))
    assert names(deliveries) == [f"{i:08d}_p{i}" for i in range(7)]
    for i, delivery in enumerate(deliveries):
        assert isinstance(delivery.payload, ValImage)
        expected = torch.from_numpy(decode_rgb(tmp_path / "in" / f"p{i}.png")).permute(2, 0, 1) / 255
        assert torch.equal(delivery.payload.image, expected)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_the_validation_images_without_overlap(tmp_path: Path, world_size: int) -> None:
    urls = expand_shards([val_shards(tmp_path)], "data.val").urls
    shares = [names(list(WholeImages(urls, 0, rank, world_size))) for rank in range(world_size)]
    assert sorted(name for share in shares for name in share) == [f"{i:08d}_p{i}" for i in range(7)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_number_of_images_can_be_limited(tmp_path: Path) -> None:
    urls = expand_shards([val_shards(tmp_path)], "data.val").urls
    assert names(list(WholeImages(urls, max_images=4))) == [f"{i:08d}_p{i}" for i in range(4)]
    shares = [names(list(WholeImages(urls, 4, rank, 3))) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == [f"{i:08d}_p{i}" for i in range(4)]


def test_a_broken_validation_image_is_counted_once_over_all_ranks(tmp_path: Path) -> None:
    files = {"a.jpg": photo_bytes("moon"), "b.jpg": b"broken", "c.jpg": photo_bytes("dusk")}
    url = pack(tmp_path / "x.tar", files)
    Path(url).write_bytes(Path(url).read_bytes()[:-20_000])
    for world_size in (1, 2, 3):
        deliveries = [d for rank in range(world_size) for d in WholeImages([url], 0, rank, world_size)]
        assert names(deliveries) == ["a"]
        assert len([photo for d in deliveries for photo in d.skipped]) == 2


def test_every_form_of_entry_finds_the_shards(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(shards / f"shard-{i:06d}.tar") for i in range(4)]
    assert expand_shards([str(shards)], "k").urls == paths
    assert expand_shards([f"{shards}/*.tar"], "k").urls == paths
    assert expand_shards([f"{shards}/shard-{{000000..000003}}.tar"], "k").urls == paths
    assert expand_shards([f"file:{paths[1]}", f"file://{paths[0]}"], "k").urls == [paths[1], paths[0]]
    assert expand_shards(paths[2:], "k").urls == paths[2:]
    monkeypatch.chdir(shards)
    assert expand_shards(["shard-00000?.tar"], "k").urls == paths
    assert expand_shards(["pipe:cat {a..c}.tar"], "k").urls == [f"pipe:cat {x}.tar" for x in "abc"]
    assert expand_shards(["https://host/x-{0..1}.tar"], "k").urls == ["https://host/x-0.tar", "https://host/x-1.tar"]


def test_entries_that_match_nothing_are_named(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.tar").touch()
    cases = {
        "gone.tar": r"data\.train: .*gone\.tar: no such shard",
        "x-{0..3}.tar": r"x-0\.tar: no such shard",
        "*.tgz": r"no shard matches",
        "folder": r"folder: no index\.json in this folder",
        "empty.tar": r"empty\.tar: is empty",
    }
    for entry, message in cases.items():
        with pytest.raises(DataError, match=message):
            expand_shards([str(tmp_path / entry)], "data.train")
    with pytest.raises(DataError, match=r"data\.train: no shards given"):
        expand_shards([], "data.train")


def test_a_shard_named_in_the_index_but_missing_is_named(tmp_path: Path) -> None:
    folder = Path(val_shards(tmp_path))
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000001\.tar: no such shard"):
        expand_shards([str(folder)], "data.val")


def test_names_with_special_characters_are_still_paths(tmp_path: Path) -> None:
    url = pack(tmp_path / "a:b {1} [x] #?.tar", {"a.b.c/photo.jpg": photo_bytes("moon")})
    assert names(list(WholeImages(expand_shards([url], "data.val").urls))) == ["photo"]


def test_shards_come_over_pipes_and_http(shards: Path) -> None:
    handler = functools.partial(QuietHandler, directory=str(shards))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web = f"http://127.0.0.1:{server.server_port}/shard-{{000000..000003}}.tar"
        urls = {
            "local": expand_shards([str(shards)], "data.val").urls,
            "pipe": expand_shards([f"pipe:cat '{shards}'/shard-{{000000..000003}}.tar"], "data.val").urls,
            "http": expand_shards([web], "data.val").urls,
        }
        found = {kind: names(list(WholeImages(given))) for kind, given in urls.items()}
        crops = {kind: take(stream(given), 3) for kind, given in urls.items()}  # ends in the middle of a shard
        server.shutdown()
    assert len(found["local"]) == 36
    assert found["pipe"] == found["http"] == found["local"]
    assert same(crops["pipe"], crops["local"])
    assert same(crops["http"], crops["local"])


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_crops_of_one_photograph_never_share_a_batch(tmp_path: Path) -> None:
    """Each photograph has a single color, so that a crop reveals its source, and is drawn once in a long while."""
    (tmp_path / "in").mkdir()
    for i in range(200):
        Image.new("RGB", (64, 64), (i, i, i)).save(tmp_path / "in" / f"{i}.png")
    write_shards([tmp_path / "in"], tmp_path / "out", ShardOptions(min_side=16))
    urls = expand_shards([str(tmp_path / "out")], "data.train").urls
    drawn = [int(d.payload[0, 0, 0]) for d in take(stream(urls, crop=16, buffer=1, per_photo=4, distance=10), 700)]  # type: ignore[index]
    last: dict[int, int] = {}
    gaps = []
    for place, photo in enumerate(drawn):
        gaps += [place - last[photo]] if photo in last else []
        last[photo] = place
    assert min(gaps) > 10
    assert max(Counter(drawn).values()) == 4


def test_several_crops_of_a_photograph_are_uniformly_distributed(tmp_path: Path) -> None:
    """Pixels encode their positions, of which all 48 x 32 are equally likely (chi-squared test)."""
    y, x = np.mgrid[0:63, 0:79].astype(np.uint8)
    Image.fromarray(np.stack([y, x, x], axis=-1)).save(tmp_path / "a.png")
    url = pack(tmp_path / "x.tar", {"a.png": (tmp_path / "a.png").read_bytes()})
    found: Counter[tuple[int, int]] = Counter()
    for delivery in take(stream([url], crop=32, per_photo=8, distance=16), 48 * 32 * 10):
        top, left = delivery.payload[0].min(), delivery.payload[1].min()  # type: ignore[index]
        found[int(top), int(left)] += 1
    counts = [found[top, left] for top in range(32) for left in range(48)]
    assert sum(counts) == 48 * 32 * 10
    chi_squared = sum((count - 10) ** 2 / 10 for count in counts)
    assert abs(chi_squared - 1535) < 5 * (2 * 1535) ** 0.5
