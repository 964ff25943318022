"""Walks through the parts of an image file before Pillow reads it, and refuses what would take Pillow hours.

Pillow copies all Exif data read so far with every further segment of it in a JPEG, and decompresses every color profile
of a PNG; libjpeg goes through the whole image for every scan, however short. So a file of a few megabytes can take
longer than any photograph. The limits are far above what cameras and programs write.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import IO, NamedTuple

from jahp_pl.errors import JahpError

MAX_PARTS = 10_000
"""Maximum number of segments of a JPEG and of chunks of a PNG, apart from those of the pixels."""
MAX_EXIF_SEGMENTS = 256
"""Maximum number of segments of Exif data in a JPEG; together they have up to 16 MiB."""
MAX_SCANS = 100
"""Maximum number of scans of a progressive JPEG; programs write about ten."""
MAX_PROFILES = 16
"""Maximum number of color profiles in a PNG, which should have one."""
MAX_PAGES = 10_000
"""Number at which the pages of a TIFF are no longer counted."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker. 0xff00 stands for 0xff in the data of a scan, in which 0xffd0 to 0xffd7 restart the decoder."""
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_WITHOUT_LENGTH = (*range(0xC0), 0xD8, _EOI, *range(0xF0, 0xFE))
_READ_BYTES = 2**20


class StructureError(JahpError, ValueError):
    """An image file with more parts than any photograph has; the message is one line."""


class _Segment(NamedTuple):
    """A segment of a JPEG."""

    marker: int
    start: bytes
    """Up to six bytes at the start of its content."""


def check_structure(file: IO[bytes]) -> None:
    """Refuse a JPEG or PNG with too many parts; files that are damaged or of other formats pass.

    Args:
        file: opened at any position, which is restored.

    Raises:
        StructureError: if there are too many parts.
        OSError: if the file cannot be read.
    """
    position = file.tell()
    try:
        file.seek(0)
        header = file.read(8)
        if header.startswith(b"\xff\xd8\xff"):
            _check_jpeg(file)
        elif header == b"\x89PNG\r\n\x1a\n":
            _check_png(file)
    finally:
        file.seek(position)


def count_pages(file: IO[bytes]) -> int:
    """Count the pages of a TIFF, up to `MAX_PAGES`. The time of Pillow's own count grows with the square.

    Args:
        file: opened at any position, which is restored.
    """
    position = file.tell()
    pages: set[int] = set()
    try:
        file.seek(0)
        header = file.read(16)
        is_big = header[2:4] in (b"\x2b\0", b"\0\x2b")
        order = "<" if header.startswith(b"II") else ">"
        pointer = struct.Struct(order + ("Q" if is_big else "L"))
        count, entry_bytes = struct.Struct(order + ("Q" if is_big else "H")), 20 if is_big else 12
        (page,) = pointer.unpack_from(header, 8 if is_big else 4)
        while page and page not in pages and len(pages) < MAX_PAGES:
            pages.add(page)
            file.seek(page)
            (num_entries,) = count.unpack(file.read(count.size))
            file.seek(page + count.size + entry_bytes * num_entries)
            (page,) = pointer.unpack(file.read(pointer.size))
    except (struct.error, OverflowError, OSError, ValueError):  # the next page would be outside the file
        pass
    finally:
        file.seek(position)
    return max(1, len(pages))


def _check_jpeg(file: IO[bytes]) -> None:
    """Count the segments before the first scan and, of a progressive image, all scans."""
    num_exif, is_progressive = 0, False
    before_scans = takewhile(lambda one: one.marker != _SOS, _segments(file, 2))
    for number, segment in enumerate(before_scans, 1):
        num_exif += segment == (_APP1, b"Exif\0\0")
        is_progressive |= segment.marker in _PROGRESSIVE
        if num_exif > MAX_EXIF_SEGMENTS:
            raise StructureError(f"more than {MAX_EXIF_SEGMENTS} segments of Exif data; remove its metadata")
        if number > MAX_PARTS:
            raise StructureError(f"more than {MAX_PARTS} segments; remove its metadata")
    if is_progressive and _has_many_scans(file, file.tell()):
        raise StructureError(f"more than {MAX_SCANS} scans; save it without progression")


def _has_many_scans(file: IO[bytes], start: int) -> bool:
    """Check whether more than `MAX_SCANS` scans start after a position, which is in the first one."""
    possible, last = 0, b""
    while possible < MAX_SCANS and (chunk := file.read(_READ_BYTES)):
        possible += (last + chunk).count(b"\xff\xda")
        last = chunk[-1:]
    if possible < MAX_SCANS:  # of nearly all files; the exact count takes ten times as long
        return False
    scans = (one for one in takewhile(lambda one: one.marker != _EOI, _segments(file, start)) if one.marker == _SOS)
    return sum(1 for _ in islice(scans, MAX_SCANS)) == MAX_SCANS


def _segments(file: IO[bytes], start: int) -> Iterator[_Segment]:
    """Yield the segments from a position on, as Pillow and libjpeg find them: what stands between them is skipped."""
    file.seek(start)
    while (marker := _next_marker(file)) is not None:
        following = file.tell()
        first_bytes = b""
        if marker not in _WITHOUT_LENGTH:
            length_and_content = file.read(8)
            following += max(2, int.from_bytes(length_and_content[:2], "big"))
            first_bytes = length_and_content[2:]
        file.seek(following)
        yield _Segment(marker, first_bytes)


def _next_marker(file: IO[bytes]) -> int | None:
    """Read up to the next marker and return it; None at the end of the file."""
    size = 64
    while len(chunk := file.read(size)) > 1:
        if found := _MARKER.search(chunk):
            file.seek(found.end() - len(chunk), os.SEEK_CUR)
            return found[0][-1]
        if chunk.endswith(b"\xff"):
            file.seek(-1, os.SEEK_CUR)
        size = min(2 * size, _READ_BYTES)
    return None


def _check_png(file: IO[bytes]) -> None:
    """Count the chunks, apart from those of the pixels, and the color profiles."""
    num_chunks = num_profiles = 0
    while len(header := file.read(8)) == 8 and header[4:] != b"IEND":
        num_chunks += header[4:] != b"IDAT"
        num_profiles += header[4:] == b"iCCP"
        if num_chunks > MAX_PARTS:
            raise StructureError(f"more than {MAX_PARTS} chunks; remove its metadata")
        if num_profiles > MAX_PROFILES:
            raise StructureError(f"more than {MAX_PROFILES} color profiles; keep one")
        file.seek(int.from_bytes(header[:4], "big") + 4, os.SEEK_CUR)
