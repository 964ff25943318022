"""The data module gives the same batches for a seed, and whole validation images in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jahp_pl.data.index import DataError
from jahp_pl.data.module import ShardDataModule
from jahp_pl.data.pipeline import ValImage
from tests.support.data_modules import batches, data_config
from tests.support.shard_servers import serving


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_two_runs_with_the_same_seed_see_the_same_batches(photo_shards: Path, num_workers: int) -> None:
    first, second, other = (
        batches(ShardDataModule(data_config(photo_shards, num_workers=num_workers), seed), 6) for seed in (3, 3, 4)
    )
    for a, b, c in zip(first, second, other, strict=True):
        assert (a.shape, a.dtype) == ((4, 3, 64, 64), torch.uint8)
        assert a.min() < 50 < 200 < a.max()
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_two_workers_never_draw_the_same_crops(photo_shards: Path) -> None:
    crops = torch.cat(batches(ShardDataModule(data_config(photo_shards, num_workers=2), 0), 20))
    assert len({crop.numpy().tobytes() for crop in crops}) == 80


def test_levels_are_divided_by_255_after_the_transfer(photo_shards: Path) -> None:
    module = ShardDataModule(data_config(photo_shards), 0)
    [batch] = batches(module, 1)
    scaled = module.on_after_batch_transfer(batch, 0)
    assert isinstance(scaled, Tensor)
    assert scaled.dtype == torch.float32
    assert torch.equal(scaled, batch / 255)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_images_come_whole_in_order_every_time(photo_shards: Path, num_workers: int) -> None:
    loader = ShardDataModule(data_config(photo_shards, num_workers=num_workers), 0).val_dataloader()
    assert not isinstance(loader, list)
    for _ in range(2):
        images = list(loader)
        assert all(isinstance(image, ValImage) for image in images)
        assert [image.name for image in images] == [  # type: ignore[union-attr]
            "00000000_dogs", "00000001_neon", "00000002_peaks", "00000003_stonehenge"
        ]  # fmt: skip
        assert [tuple(image.image.shape) for image in images] == [  # type: ignore[union-attr]
            (1, 3, 961, 640), (1, 3, 512, 512), (1, 3, 640, 853), (1, 3, 600, 800)
        ]  # fmt: skip


def test_the_number_of_validation_images_can_be_bounded(photo_shards: Path) -> None:
    assert len(list(ShardDataModule(data_config(photo_shards, max_val_images=2), 0).val_dataloader())) == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_a_worker_is_one_line_and_ends_all_workers(photo_shards: Path, num_workers: int) -> None:
    before = {process.pid for process in multiprocessing.active_children()}
    module = ShardDataModule(data_config(photo_shards, num_workers=num_workers, crop_size=2048), 0)
    with pytest.raises(DataError, match="no photograph is large enough for data") as caught:
        batches(module, 1)
    assert "\n" not in str(caught.value)
    assert {process.pid for process in multiprocessing.active_children()} <= before


def test_missing_shards_are_refused_before_anything_starts(photo_shards: Path, tmp_path: Path) -> None:
    for key in ("train", "val"):
        with pytest.raises(DataError, match=rf"^data\.{key}: .*gone: no such shard"):
            ShardDataModule(data_config(photo_shards, **{key: [str(tmp_path / "gone")]}), 0)
    with pytest.raises(DataError, match=r"^data\.train: no shards given"):
        ShardDataModule(data_config(photo_shards, train=[]), 0)


def test_no_process_is_left_after_the_loader(photo_shards: Path) -> None:
    loader = ShardDataModule(data_config(photo_shards, num_workers=2), 0).train_dataloader()
    stream = iter(loader)
    next(stream)
    workers: Sequence[Any] = loader._iterator._workers  # type: ignore[union-attr,attr-defined]
    pids = [worker.pid for worker in workers]
    assert len(pids) == 2
    del stream, loader, workers
    gc.collect()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_streams_without_their_own_shards_work_with_one_warning(photo_shards: Path) -> None:
    """If there is one shard for two workers, both draw from it, but different crops."""
    module = ShardDataModule(data_config(photo_shards, train=[str(photo_shards / "val")], num_workers=2), 0)
    with pytest.warns(UserWarning, match=r"data\.train: 1 shard for 2 workers in all processes") as said:
        crops = torch.cat(batches(module, 9))
    assert len(said) == 1
    assert len({crop.numpy().tobytes() for crop in crops}) == 36


def test_crops_come_through_the_configured_cache_folder(photo_shards: Path, tmp_path: Path) -> None:
    with serving(photo_shards / "train") as server:
        changes: dict[str, Any] = {"train": [server.address()], "cache_dir": str(tmp_path / "kept"), "num_workers": 2}
        first = batches(ShardDataModule(data_config(photo_shards, **changes), 0), 4)
        second = batches(ShardDataModule(data_config(photo_shards, **changes), 0), 4)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    downloads = {name: count for name, count in server.requests.items() if name.endswith(".tar")}
    assert set(downloads.values()) == {1}
    assert len(list((tmp_path / "kept").glob("*.tar"))) == len(downloads)
