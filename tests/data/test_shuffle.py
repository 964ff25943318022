"""The shuffle buffer is bounded in bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jahp_pl.data import shuffle
from jahp_pl.data.shard_reader import Item, ShardReader
from jahp_pl.data.urls import expand_shards


def test_the_shuffle_buffer_is_bounded_in_bytes(train_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "_BUFFER_BYTES", 500_000)
    held = 0
    held_when_pulled = []

    def counted() -> Iterator[Item]:
        nonlocal held
        for item in ShardReader().read(expand_shards([str(train_shards)], "data.train").urls):
            held_when_pulled.append(held)
            held += shuffle.item_bytes(item)
            yield item

    for item in shuffle.shuffled(counted(), 1000, random.Random(0)):
        held -= shuffle.item_bytes(item)
    assert len(held_when_pulled) == 36
    assert 300_000 < max(held_when_pulled) <= 500_000
