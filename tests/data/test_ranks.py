"""Ranks share each batch and the validation images."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest

from jahp_pl.config import ConfigError
from jahp_pl.data.module import ShardDataModule
from tests.support.data_modules import batches, data_config


class Place:
    """The trainer's attributes that the data module reads, for ranks other than this process."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.global_rank, self.world_size, self.global_step = rank, world_size, 0
        self.strategy = lightning.pytorch.strategies.SingleDeviceStrategy("cpu")


def test_ranks_share_the_batch_and_the_validation_images(photo_shards: Path) -> None:
    crops: list[set[bytes]] = []
    images: list[str] = []
    for rank in range(2):
        module = ShardDataModule(data_config(photo_shards, batch_size=6), 0)
        module.trainer = Place(rank, 2)  # type: ignore[assignment]
        drawn = batches(module, 4)
        assert all(batch.shape == (3, 3, 64, 64) for batch in drawn)
        crops.append({crop.numpy().tobytes() for batch in drawn for crop in batch})
        images += [image.name for image in module.val_dataloader()]  # type: ignore[union-attr]
    assert not crops[0] & crops[1]
    assert sorted(images) == ["00000000_dogs", "00000001_neon", "00000002_peaks", "00000003_stonehenge"]


def test_a_batch_that_does_not_divide_is_refused(photo_shards: Path) -> None:
    module = ShardDataModule(data_config(photo_shards, batch_size=4), 0)
    module.trainer = Place(0, 3)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"data\.batch_size=4: must be a multiple of the 3 training processes"):
        module.train_dataloader()


def test_more_ranks_than_validation_images_leave_some_with_none(photo_shards: Path) -> None:
    images = []
    for rank in range(6):
        module = ShardDataModule(data_config(photo_shards, num_workers=1), 0)
        module.trainer = Place(rank, 6)  # type: ignore[assignment]
        images.append([image.name for image in module.val_dataloader()])  # type: ignore[union-attr]
    assert [len(share) for share in images] == [1, 1, 1, 1, 0, 0]
