"""A small file that would take Pillow hours is refused at once; what cameras and programs write is read."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from jahp_pl.images import structure
from jahp_pl.images.io import ImageError, decode_rgb
from tests.support.image_files import encode


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def jpeg_with(segments: bytes) -> bytes:
    data = encode(Image.new("RGB", (32, 16), "red"), "JPEG")
    return data[:2] + segments + data[2:]


def png_with(chunks: bytes) -> bytes:
    data = encode(Image.new("RGB", (32, 16), "red"), "PNG")
    place = data.index(b"IDAT") - 4
    return data[:place] + chunks + data[place:]


def tiff_with_pages(number: int) -> bytes:
    """Make a TIFF whose first page is followed by others, each of which is a copy of its tags."""
    data = bytearray(encode(Image.new("RGB", (32, 16), "red"), "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    tags = data[start : start + 2 + 12 * count]
    struct.pack_into("<I", data, start + len(tags), len(data))
    for page in range(2, number + 1):
        data += tags + struct.pack("<I", len(data) + len(tags) + 4 if page < number else 0)
    return bytes(data)


def jpeg_with_scans(number: int) -> bytes:
    """Make a progressive JPEG in which the last scan is repeated."""
    data = encode(Image.new("L", (64, 64), 77), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (number - len(re.findall(b"\xff\xda", data))) + data[-2:]


PROFILE = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(900_000)))
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "Exif": (
        lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + b"x" * 10) * 400_000),
        "more than 256 segments of Exif data",
    ),
    "comments": (lambda: jpeg_with(segment(0xFE, b"") * 400_000), "more than 10000 segments"),
    "tables": (lambda: jpeg_with(segment(0xC4, b"") * 400_000), "more than 10000 segments"),
    "restarts": (lambda: jpeg_with(b"\xff\xf0" * 400_000), "more than 10000 segments"),
    "scans": (lambda: jpeg_with_scans(101), "more than 100 scans"),
    "text": (
        lambda: png_with(b"".join(chunk(b"tEXt", b"k%d\0v" % n) for n in range(20_000))),
        "more than 10000 chunks",
    ),
    "profiles": (lambda: png_with(PROFILE * 17), "more than 16 color profiles"),
    "pages": (lambda: tiff_with_pages(50_000), "has 10000 frames or pages"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_with_too_many_parts_is_refused_at_once(kind: str) -> None:
    make, reason = HOSTILE[kind]
    data = make()
    start = time.process_time()
    with pytest.raises(ImageError, match=rf"^image: {reason}"):
        decode_rgb(data)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0") + segment(0xE1, b"Exif\0\0more") * 200),
        jpeg_with(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 300),
        jpeg_with(b"\xff" * 200_000),
        png_with(b"".join(chunk(b"tEXt", b"k%d\0v" % n) for n in range(9_000))),
        png_with(PROFILE * 2),
    ],
    ids=["Exif", "XMP", "filling", "text", "profiles"],
)
def test_a_file_with_many_parts_is_read(data: bytes) -> None:
    assert np.abs(decode_rgb(data)[8, 8].astype(int) - (255, 0, 0)).max() <= 3


def test_scans_up_to_the_limit_and_bytes_that_look_like_scans_are_read() -> None:
    assert decode_rgb(jpeg_with_scans(100)).shape == (64, 64, 3)
    with_clip = jpeg_with_scans(10) + b"\xff\xda" * 200  # e.g. a motion photo
    assert decode_rgb(with_clip).shape == (64, 64, 3)
    data = jpeg_with_scans(10)
    place = data.rindex(b"\xff\xda")
    comment = segment(0xFE, b"\xff\xda" * 200)
    assert decode_rgb(data[:place] + comment + data[place:]).shape == (64, 64, 3)


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
def test_pages_are_counted_as_pillow_counts_them(big: bool) -> None:
    pages = [Image.new("L", (8, 8), n) for n in range(3)]
    data = io.BytesIO(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:], big_tiff=big))
    assert structure.count_pages(data) == getattr(Image.open(data), "n_frames") == 3  # noqa: B009  not an attribute of all images
    for length in range(0, len(data.getvalue()), 7):
        assert 1 <= structure.count_pages(io.BytesIO(data.getvalue()[:length])) <= 3
    loop = bytearray(tiff_with_pages(2))
    loop[-4:] = loop[4:8]
    assert structure.count_pages(io.BytesIO(loop)) == 2
