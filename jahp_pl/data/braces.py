"""Counts the names of brace patterns, such as `shard-{000..017}.tar` and `{a,b}.tar`, before they are expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_NAMES = 1_000_000
"""Maximum number of names per pattern; at a gigabyte per shard, that is 1 PB."""

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


def count_names(pattern: str) -> int:
    """Count the names that a pattern expands to without expanding it; unbalanced braces count as text."""
    count, depth, start = 1, 0, 0
    for index, char in enumerate(pattern):
        if char == "{":
            start = index + 1 if depth == 0 else start
            depth += 1
        elif char == "}" and depth:
            depth -= 1
            if depth == 0:
                count *= _count_group(pattern[start:index])
    return count


def _count_group(inside: str) -> int:
    if match := _RANGE.fullmatch(inside):
        first, last, step = (int(number or 1) for number in match.groups())
        return abs(last - first) // (abs(step) or 1) + 1
    return sum(map(count_names, _alternatives(inside)))


def _alternatives(inside: str) -> Iterator[str]:
    """Split at the commas outside inner braces."""
    depth, start = 0, 0
    for index, char in enumerate(inside):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            yield inside[start:index]
            start = index + 1
    yield inside[start:]
