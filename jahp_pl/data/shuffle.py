"""Two ways to separate neighbours: photographs of one shard randomly, crops of one photograph by a distance."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from jahp_pl.data.shard_reader import Item, Photo

_BUFFER_BYTES = 128 * 2**20
_SHUFFLE_START = 100

T = TypeVar("T")


def shuffled(items: Iterable[Item], capacity: int, rng: random.Random) -> Iterator[Item]:
    """Yield random items from a buffer that fills up while the first ones leave; limited in items and in bytes."""
    buffer: list[Item] = []
    num_bytes = 0
    for count, item in enumerate(items):
        buffer.append(item)
        num_bytes += item_bytes(item)
        while len(buffer) >= min(capacity, _SHUFFLE_START + count // 2) or num_bytes > _BUFFER_BYTES:
            chosen = rng.randrange(len(buffer))
            buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
            num_bytes -= item_bytes(buffer[-1])
            yield buffer.pop()


def item_bytes(item: Item) -> int:
    """Return the bytes that an item holds."""
    return len(item.data) if isinstance(item, Photo) else 0


def interleave_apart(groups: Iterable[Sequence[T]], size: int, distance: int) -> Iterator[T]:
    """Interleave groups so that two members of one group are more than `distance` positions apart.

    Each position of a group is a lane with its own delay. The first groups only fill the lanes.

    Args:
        groups: endless source of groups of `size` members.
        size: k; about distance * k / 2 members are held.
        distance: at least 1.
    """
    delay = -(-distance // size)  # groups between two lanes
    lanes = [deque[T](maxlen=place * delay + 1) for place in range(size)]
    for count, group in enumerate(groups):
        for lane, member in zip(lanes, group, strict=True):
            lane.append(member)
        if count >= (size - 1) * delay:
            yield from (lane[0] for lane in lanes)
