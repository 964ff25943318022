"""Brace patterns, `shard-{000..017}.tar` and `{a,b}.tar`: counted before they are expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_NAMES = 1_000_000
"""More shards than any setting names: 1 PB at a gigabyte each."""

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


def count_names(pattern: str) -> int:
    """How many names a pattern stands for, without making one; unbalanced braces count as text."""
    count, depth, start = 1, 0, 0
    for place, char in enumerate(pattern):
        if char == "{":
            start = place + 1 if depth == 0 else start
            depth += 1
        elif char == "}" and depth:
            depth -= 1
            if depth == 0:
                count *= _count_group(pattern[start:place])
    return count


def _count_group(inside: str) -> int:
    if match := _RANGE.fullmatch(inside):
        first, last, step = (int(number or 1) for number in match.groups())
        return abs(last - first) // (abs(step) or 1) + 1
    return sum(map(count_names, _alternatives(inside)))


def _alternatives(inside: str) -> Iterator[str]:
    """The parts between commas that no inner braces hold."""
    depth, start = 0, 0
    for place, char in enumerate(inside):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            yield inside[start:place]
            start = place + 1
    yield inside[start:]
