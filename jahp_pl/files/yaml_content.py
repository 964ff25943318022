"""Reads YAML from untrusted sources: bounds its size, its depth, and what its aliases stand for.

PyYAML itself has no such limits. Ten aliases of ten aliases, and so on, let a few hundred bytes stand for billions of
values, and its time grows quadratically with the depth of brackets and with the length of numbers such as 1:59:59.
"""

from __future__ import annotations

from pathlib import Path

import yaml

MAX_FILE_BYTES = 2**18
"""Maximum size of a file, and number of characters of its text with each alias replaced by what it stands for.
Configurations and sweeps take a few thousand."""
MAX_DEPTH = 100
"""Maximum number of mappings and sequences inside each other."""


def read(path: Path) -> bytes:
    """Read a file of YAML, or a pipe, that is safe to parse.

    Raises:
        ValueError: if it is too large, or nested too deeply, or its aliases stand for too much.
        yaml.YAMLError: if it is not YAML.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    _check_aliases_and_depth(data)
    return data


def _check_aliases_and_depth(data: bytes) -> None:
    """Count the characters of the whole text with aliases replaced, from PyYAML's events, which build nothing."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(data, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > MAX_DEPTH:
                raise ValueError("it is nested too deeply")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1 + len(event.value)
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == name for name, _ in open_nodes):
                raise ValueError(f"*{event.anchor} stands for a value that contains it")
            anchor, size = None, sizes.get(event.anchor or "", 0)
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer, total = open_nodes[-1]
        open_nodes[-1] = (outer, total + size)
        if total + size > MAX_FILE_BYTES:
            raise ValueError(f"its aliases stand for more than {MAX_FILE_BYTES} characters")
