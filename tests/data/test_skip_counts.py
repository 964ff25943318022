"""Unusable photographs and shards are counted exactly, and too large a share of them stops a run."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from jahp_pl.data.index import DataError
from jahp_pl.data.module import ShardDataModule
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.data.tar import list_members
from jahp_pl.data.urls import Shards
from tests.support.data_modules import batches, data_config, train_recorder
from tests.support.photo_shards import PHOTOS


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_photographs_are_skipped_and_counted_in_every_run(
    photo_shards: Path, tmp_path: Path, num_workers: int
) -> None:
    """Two of three photographs in a shard are unusable; every pass over it gives one crop and two skips."""
    write_shards([PHOTOS / "train" / f"{n}.jpg" for n in ("falcon", "moon", "dusk")], tmp_path / "s")
    shard = tmp_path / "s" / "shard-000000.tar"
    broken = shard.read_bytes().replace((PHOTOS / "train" / "dusk.jpg").read_bytes()[:1000], bytes(1000))
    shard.write_bytes(broken)
    changes = {"train": 2 * [str(tmp_path / "s")], "crop_size": 272, "batch_size": 2, "shuffle_buffer": 1}
    found = []
    for _ in range(2):
        module = ShardDataModule(data_config(photo_shards, num_workers=num_workers, **changes), 0)
        assert len(batches(module, 6)) == 6
        found.append(module.train_skipped)
    first, second = found
    assert first == second
    # 12 crops. The first crop of a worker waits only for the preceding samples of its shard
    assert abs(first.num_broken - 12) <= 2
    assert abs(first.num_small - 12) <= 2
    assert sorted(Path(skipped.name).stem.split("_")[1] for skipped in first.examples) == ["dusk", "falcon"]


def write_damaged(folder: Path) -> list[str]:
    """Write eight shards of five photographs, of which the second is damaged; cut the last shard within its third."""
    source = folder / "in"
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(source / f"{number:02d}.jpg")
    write_shards([source], folder / "s", ShardOptions(min_side=64, shard_samples=5, shuffle=False))
    paths = sorted((folder / "s").glob("*.tar"))
    for path in paths:
        data, places = bytearray(path.read_bytes()), list(list_members(path))
        data[places[1].offset : places[1].offset + places[1].size] = bytes(places[1].size)
        path.write_bytes(data if path != paths[-1] else data[: places[2].offset + 100])
    return [str(path) for path in paths]


def items_drawn(urls: list[str]) -> Iterator[str]:
    """Yield the outcome of each photograph in the order in which the first worker with seed 0 must draw them."""
    for_shards = np.random.SeedSequence((0, 0, 0, 0, 0)).spawn(3)[0]
    seed = int(for_shards.generate_state(1)[0])
    for shard in webdataset.ResampledShards(urls, deterministic=True, worker_seed=lambda: seed):
        yield from ["sound", "spoiled", "cut"] if shard["url"] == urls[-1] else ["sound", "spoiled", *3 * ["sound"]]


@pytest.mark.parametrize("crops_per_photo", [1, 4])
def test_a_run_trains_through_damage_and_counts_it_exactly(
    photo_shards: Path, tmp_path: Path, crops_per_photo: int
) -> None:
    """One in five photographs and one in eight shards are damaged."""
    urls = write_damaged(tmp_path)
    changes: dict[str, Any] = {"train": urls, "val": [], "batch_size": 16, "shuffle_buffer": 1}
    model, module, _ = train_recorder(photo_shards, tmp_path, 80, crops_per_photo=crops_per_photo, **changes)
    assert len(model.seen) == 80
    counts = module.train_skipped
    drawn = Counter(itertools.islice(items_drawn(urls), counts.drawn.photos))
    assert drawn["cut"] > 0
    assert counts.num_broken == drawn["spoiled"] + drawn["cut"]
    assert counts.drawn.broken_shards == drawn["cut"]
    assert counts.num_small == 0
    waiting = 3 * 4 if crops_per_photo == 4 else 0  # photographs whose crops wait for their turn
    batches_fetched = (drawn["sound"] - waiting) * crops_per_photo / 16
    assert batches_fetched in (80, 81)  # Lightning may be one ahead
    assert len(counts.examples) == 9


@pytest.mark.parametrize(("share", "stops"), [(0.2, True), (0.25, False)])
def test_a_run_stops_when_too_many_photographs_are_broken(
    photo_shards: Path, tmp_path: Path, share: float, stops: bool, caplog: pytest.LogCaptureFixture
) -> None:
    changes: dict[str, Any] = {"train": write_damaged(tmp_path), "batch_size": 16, "shuffle_buffer": 1}
    module = ShardDataModule(data_config(photo_shards, max_broken_share=share, **changes), 0)
    if not stops:
        assert len(batches(module, 90)) == 90
    else:
        with pytest.raises(DataError, match=r"^2\d% of the latest photographs are broken, more than data\.max_") as e:
            batches(module, 90)
        assert "shard-000006.tar/00000031_31.jpg (not an image" in str(e.value)
        assert "\n" not in str(e.value)
        assert 1000 <= module.train_skipped.drawn.photos < 1040
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records) == 9


def test_a_run_stops_when_too_many_shards_are_broken_though_few_photographs_are(
    photo_shards: Path, tmp_path: Path
) -> None:
    """Each intact shard gives nine photographs, and each broken shard counts as a single item."""
    urls = [str(photo_shards / "train" / "shard-000000.tar"), *(str(tmp_path / f"gone-{i}.tar") for i in range(2))]
    shards = Shards(urls, {})
    module = ShardDataModule(data_config(photo_shards), 0)
    module._train = shards
    with pytest.raises(DataError, match=r"% of the latest shards are broken, more than .*=0\.5, e\.g\. .*gone-"):
        batches(module, 1000)
    assert 100 <= module.train_skipped.drawn.shards < 130
