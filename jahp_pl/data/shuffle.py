"""Shuffles photographs in a buffer, and interleaves crops so that those of one photograph are in different batches."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from jahp_pl.data.shard_reader import Item, Photo

_BUFFER_BYTES = 128 * 2**20
"""Maximum size of the encoded photographs in the buffer."""
_SHUFFLE_START = 100
"""Items in the buffer before the first one leaves it; after that, the buffer grows by one with every second item."""

T = TypeVar("T")


def shuffled(items: Iterable[Item], capacity: int, rng: random.Random) -> Iterator[Item]:
    """Shuffle items in a buffer, which fills up while the first items leave it.

    Args:
        items: photographs in the order of the shards.
        capacity: maximum number of items in the buffer, which is also limited to `_BUFFER_BYTES`.
        rng: source of the order.
    """
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
    """Return the size of an item's encoded image in bytes."""
    return len(item.data) if isinstance(item, Photo) else 0


def interleave_groups(groups: Iterable[Sequence[T]], size: int, distance: int) -> Iterator[T]:
    """Interleave groups so that two members of one group are more than `distance` positions apart.

    Position k of every group goes to queue k, which delays it by k times the same number of groups. The first groups
    only fill the queues.

    Args:
        groups: endless source of groups of `size` members.
        size: members per group; about distance * size / 2 members are in memory.
        distance: minimum distance in members, exclusive; at least 1.
    """
    delay = -(-distance // size)  # in groups, from one queue to the next
    queues = [deque[T](maxlen=position * delay + 1) for position in range(size)]
    for count, group in enumerate(groups):
        for queue, member in zip(queues, group, strict=True):
            queue.append(member)
        if count >= (size - 1) * delay:
            yield from (queue[0] for queue in queues)
