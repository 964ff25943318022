"""Reads the boxes of ISO base media files (AVIF, JPEG 2000) in memory.

A box has a length, a type and a content, which may consist of boxes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 10_000
"""Limit on the number of boxes, more than any image has; it bounds the time for a file of empty boxes."""


class Box(NamedTuple):
    """A box: its type and its content."""

    kind: bytes
    """Type of the box, four letters."""
    content: bytes


def boxes(data: bytes) -> Iterator[Box]:
    """Yield the consecutive boxes in `data`; stop where the rest is not a box."""
    start = 0
    for _ in range(MAX_BOXES):
        if start + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        header_size = 8
        if size == 1 and start + 16 <= len(data):
            (size,), header_size = struct.unpack_from(">Q", data, start + 8), 16
        elif size == 0:
            size = len(data) - start
        if size < header_size:
            return
        yield Box(kind, data[start + header_size : start + size])
        start += size


def find_boxes(data: bytes, *path: bytes) -> list[bytes]:
    """Return the contents of all boxes at a path of types; the version and flags of `meta`, a full box, are skipped."""
    contents = [data]
    for kind in path:
        contents = [box.content for content in contents for box in boxes(content) if box.kind == kind]
        if kind == b"meta":
            contents = [content[4:] for content in contents]
    return contents


def primary_properties(data: bytes) -> list[Box]:
    """Return the properties (`ipco`) of the primary item of a HEIF or AVIF file; all properties if none are assigned
    to it."""
    meta = next(iter(find_boxes(data, b"meta")), b"")
    properties = [box for content in find_boxes(meta, b"iprp", b"ipco") for box in boxes(content)]
    primary = next((_number(content[4:], content[:1]) for content in find_boxes(meta, b"pitm")), None)
    for content in find_boxes(meta, b"iprp", b"ipma"):
        try:
            chosen = _associations(content).get(primary)
        except struct.error:  # truncated
            chosen = None
        if chosen is not None:
            return [properties[i - 1] for i in chosen if 1 <= i <= len(properties)]
    return properties


def _associations(content: bytes) -> dict[int | None, list[int]]:
    """Map items to the numbers of their properties, from 1 (ISO/IEC 23008-12, 9.3.1)."""
    version, flags = content[0], content[3]
    (count,) = struct.unpack_from(">I", content, 4)
    start, found = 8, {}
    for _ in range(min(count, MAX_BOXES)):
        item, size = struct.unpack_from(">IB" if version else ">HB", content, start)
        start += 5 if version else 3
        width, mask = (2, 0x7FFF) if flags & 1 else (1, 0x7F)
        numbers = struct.unpack_from(f">{size}{'H' if width == 2 else 'B'}", content, start)
        found[item] = [number & mask for number in numbers]
        start += width * size
    return found


def _number(content: bytes, version: bytes) -> int | None:
    size = 2 if version == b"\0" else 4
    return int.from_bytes(content[:size], "big") if len(content) >= size else None
