"""Shards become endless crops, each photograph equally often, or whole images once each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.data.pipeline import ValImage, WholeImages
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.data.urls import expand_shards
from jahp_pl.images.io import decode_rgb
from tests.support.photo_shards import names, pack, photo_bytes, same, stream, take, write_val_shards


def test_crops_are_uint8_and_are_cut_from_the_photograph(tmp_path: Path) -> None:
    url = pack(tmp_path / "one.tar", {"denim.jpg": photo_bytes("denim")})
    original = decode_rgb(photo_bytes("denim"))
    places = {original[y, x : x + 64].tobytes(): (y, x) for y in range(449) for x in range(449)}
    flips: Counter[bool] = Counter()
    corners = set()
    for sample in take(stream([url]), 40):
        crop = sample.data
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


def test_the_same_seed_gives_the_same_crops(train_shards: Path) -> None:
    urls = expand_shards([str(train_shards)], "data.train").urls
    assert expand_shards([str(train_shards / "index.json")], "data.train").urls == urls
    assert same(take(stream(urls), 40), take(stream(urls), 40))


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"rank": 1}])
def test_another_seed_step_or_rank_gives_other_crops(train_shards: Path, other: dict[str, int]) -> None:
    urls = expand_shards([str(train_shards)], "data.train").urls
    first = {d.data.numpy().tobytes() for d in take(stream(urls), 40)}  # type: ignore[union-attr]
    second = {d.data.numpy().tobytes() for d in take(stream(urls, **other), 40)}  # type: ignore[arg-type,union-attr]
    assert len(first) == len(second) == 40
    assert not first & second


def test_a_second_pass_continues_with_other_crops(train_shards: Path) -> None:
    crops = stream(expand_shards([str(train_shards)], "data.train").urls)
    assert not same(take(crops, 5), take(crops, 5))


def test_all_photographs_are_drawn_equally_often(tmp_path: Path) -> None:
    """Each photograph has a single color, so that a crop reveals its source."""
    (tmp_path / "in").mkdir()
    for i in range(12):
        Image.new("RGB", (64, 64), (i, i, i)).save(tmp_path / "in" / f"{i}.png")
    write_shards([tmp_path / "in"], tmp_path / "out", ShardOptions(min_side=16, shard_samples=4))
    urls = expand_shards([str(tmp_path / "out")], "data.train").urls
    drawn = Counter(int(d.data[0, 0, 0]) for d in take(stream(urls, crop=16), 3000))  # type: ignore[index]
    assert len(drawn) == 12
    assert max(drawn.values()) <= 1.5 * min(drawn.values())


def test_a_crop_as_large_as_the_photograph_fits(tmp_path: Path) -> None:
    url = pack(tmp_path / "x.tar", {"moon.jpg": photo_bytes("moon")})
    assert take(stream([url], crop=512), 1)[0].data.shape == (3, 512, 512)  # type: ignore[union-attr]


def test_keeping_decoded_photographs_changes_no_crop(train_shards: Path) -> None:
    urls = expand_shards([str(train_shards)], "data.train").urls
    kept = take(stream(urls), 60)
    assert same(kept, take(stream(urls, decoded_bytes=0), 60))


def test_validation_images_are_whole_and_come_once_in_order(tmp_path: Path) -> None:
    samples = list(WholeImages(expand_shards([write_val_shards(tmp_path)], "data.val").urls))
    assert names(samples) == [f"{i:08d}_p{i}" for i in range(7)]
    for i, sample in enumerate(samples):
        assert isinstance(sample.data, ValImage)
        expected = torch.from_numpy(decode_rgb(tmp_path / "in" / f"p{i}.png")).permute(2, 0, 1) / 255
        assert torch.equal(sample.data.image, expected)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_the_validation_images_without_overlap(tmp_path: Path, world_size: int) -> None:
    urls = expand_shards([write_val_shards(tmp_path)], "data.val").urls
    shares = [names(list(WholeImages(urls, 0, rank, world_size))) for rank in range(world_size)]
    assert sorted(name for share in shares for name in share) == [f"{i:08d}_p{i}" for i in range(7)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_number_of_images_can_be_limited(tmp_path: Path) -> None:
    urls = expand_shards([write_val_shards(tmp_path)], "data.val").urls
    assert names(list(WholeImages(urls, max_images=4))) == [f"{i:08d}_p{i}" for i in range(4)]
    shares = [names(list(WholeImages(urls, 4, rank, 3))) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == [f"{i:08d}_p{i}" for i in range(4)]


def test_crops_of_one_photograph_never_share_a_batch(tmp_path: Path) -> None:
    """Each photograph has a single color, so that a crop reveals its source, and is drawn once in a long while."""
    (tmp_path / "in").mkdir()
    for i in range(200):
        Image.new("RGB", (64, 64), (i, i, i)).save(tmp_path / "in" / f"{i}.png")
    write_shards([tmp_path / "in"], tmp_path / "out", ShardOptions(min_side=16))
    urls = expand_shards([str(tmp_path / "out")], "data.train").urls
    drawn = [int(d.data[0, 0, 0]) for d in take(stream(urls, crop=16, buffer=1, per_photo=4, distance=10), 700)]  # type: ignore[index]
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
    for sample in take(stream([url], crop=32, per_photo=8, distance=16), 48 * 32 * 10):
        top, left = sample.data[0].min(), sample.data[1].min()  # type: ignore[index]
        found[int(top), int(left)] += 1
    counts = [found[top, left] for top in range(32) for left in range(48)]
    assert sum(counts) == 48 * 32 * 10
    chi_squared = sum((count - 10) ** 2 / 10 for count in counts)
    assert abs(chi_squared - 1535) < 5 * (2 * 1535) ** 0.5
