"""Shards of the bundled photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from tests.support.photo_shards import PHOTOS


@pytest.fixture(scope="session")
def photo_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the bundled photographs, `train` (four) and `val` (one, in the order of their names); do not change."""
    out = tmp_path_factory.mktemp("photo-shards")
    write_shards([PHOTOS / "train"], out / "train", ShardOptions(shard_samples=10))
    write_shards([PHOTOS / "val"], out / "val", ShardOptions(shuffle=False))
    return out


@pytest.fixture(scope="session")
def train_shards(photo_shards: Path) -> Path:
    """The four shards of the bundled training photographs."""
    return photo_shards / "train"
