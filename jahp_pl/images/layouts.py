"""Detects sample layouts that Pillow would read incorrectly, and fixes or refuses them.

Every case was demonstrated on a small file (tests/docs/test_images.py). Files that a later Pillow reads correctly stay
correct.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from jahp_pl.errors import JahpError
from jahp_pl.images.boxes import find_boxes, primary_properties
from jahp_pl.images.colors import leading_bytes

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _YCBCR, _SIGNED = 0, 6, 2
_FITS_SCALE = re.compile(rb"BZERO   =|BSCALE  =|BITPIX  = *16\b")
"""Signed samples of 16 bits in the header of a FITS file, and values to add or multiply, which Pillow ignores."""
_SIZ = b"\xff\x4f\xff\x51"
_INDEXED = "1", "P", "PA"


class LayoutError(JahpError, ValueError):
    """An image whose samples cannot be read correctly; the message is one line."""


class SampleFormat(NamedTuple):
    """Properties of the samples of a file that Pillow discards when it reads the header."""

    is_deep: bool = False
    """Whether samples have more than 8 bits; Pillow returns only 8 of them."""
    white: int | None = None
    """Value of white; None if the mode implies it."""
    is_inverted: bool = False
    """Whether the largest sample is black."""


def inspect_layout(image: Image.Image) -> SampleFormat:
    """Inspect an image that is open but not loaded, and fix how Pillow will read it.

    Raises:
        LayoutError: if Pillow would read it incorrectly.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return SampleFormat()
    if image.format == "TIFF":
        return _inspect_tiff(image)
    if image.format == "JPEG2000":
        return _inspect_jpeg_2000(leading_bytes(image), image.mode)
    if image.format == "AVIF":
        flags = next((p.content[2] for p in primary_properties(leading_bytes(image)) if p.kind == b"av1C"), 0)
        return SampleFormat(is_deep=bool(flags & 0x40))
    if image.format == "HEIF":
        return SampleFormat(is_deep=image.info.get("bit_depth", 8) > 8)
    if image.format == "PNG":
        return _inspect_png(image)
    if image.format == "PPM":
        maxima = [tile[3][-1] for tile in image.tile if isinstance(tile[3], tuple) and isinstance(tile[3][-1], int)]
        white = 65535 if image.mode == "I" else None  # Pillow scales the maximum that the file states to it
        return SampleFormat(is_deep=max(maxima, default=0) > 255 and image.mode == "RGB", white=white)
    if image.format == "FITS" and _FITS_SCALE.search(leading_bytes(image)[: image.tile[0].offset]):
        raise LayoutError("FITS with signed or scaled samples is not supported; convert it to PNG")
    return SampleFormat()


def transparent_gray(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel of a 16-bit gray image in which one level is transparent; None without such a level."""
    level = image.info.get("transparency")
    if not image.mode.startswith("I") or not isinstance(level, int):
        return None
    return Image.fromarray(np.where(np.asarray(image) == level, 0, 255).astype(np.uint8))


def _inspect_tiff(image: ImageFile.ImageFile) -> SampleFormat:
    """Find the value of white; fix planes of 16 bits, and refuse what Pillow reads incorrectly."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (1,))
    photometric = tags.get(_PHOTOMETRIC)
    is_raw = bool(image.tile) and image.tile[0][0] == "raw"
    if getattr(image, "_planar_configuration", 1) == 2 and is_raw and set(bits) != {8}:
        _fix_planes(image, bits)
    if photometric == _YCBCR and is_raw:
        raise LayoutError("uncompressed TIFF in YCbCr is not supported; convert it to RGB")
    if image.mode == "F" and photometric == _WHITE_IS_ZERO:
        raise LayoutError("TIFF with float samples whose white is 0 is not supported; convert it to PNG")
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()) and max(bits) <= 16:
        raise LayoutError(f"TIFF with signed samples of {max(bits)} bits is not supported; convert it to unsigned ones")
    white = 4095 if tuple(bits) == (12,) else None
    return SampleFormat(white=white, is_inverted=photometric == _WHITE_IS_ZERO and image.mode.startswith("I"))


def _fix_planes(image: ImageFile.ImageFile, bits: tuple[int, ...]) -> None:
    """Correct planes of 16 bits, which Pillow reads as planes of 8 bits."""
    if set(bits) != {16} or image.mode not in ("RGB", "RGBA"):
        raise LayoutError(f"TIFF planes of {bits[0]} bits in mode {image.mode} are not supported; convert it to PNG")
    order = "L" if getattr(image, "tag_v2").prefix == b"II" else "B"  # noqa: B009  not an attribute of all images
    image.tile = [
        tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:])) if len(str(tile.args[0])) == 1 else tile
        for tile in image.tile
        if isinstance(tile.args, tuple)
    ]


def _inspect_png(image: Image.Image) -> SampleFormat:
    """Correct the transparent level, which the file gives in its own bit depth while Pillow compares 8 bits."""
    if image.mode == "P" and image.palette is None:
        raise LayoutError("PNG without the palette that its pixels refer to; use an intact copy")
    level = image.info.get("transparency")
    depth = _raw_bits(image)
    if isinstance(level, tuple) and depth == 16:
        raise LayoutError("16-bit PNG with one transparent color is not supported; use an alpha channel or 8 bits")
    if image.mode == "L" and isinstance(level, int) and depth in (2, 4):
        image.info["transparency"] = level * (255 // (2**depth - 1))
    return SampleFormat()


def _raw_bits(image: Image.Image) -> int:
    """Return the bits per sample in the header of a PNG."""
    data = leading_bytes(image)
    return data[24] if len(data) > 24 else 8


def _inspect_jpeg_2000(data: bytes, mode: str) -> SampleFormat:
    """Read bit depths from the codestream; refuse what Pillow reads incorrectly."""
    start = data.find(_SIZ)
    if start < 0 or start + 42 > len(data):
        return SampleFormat()
    width, height, left, top, tile_width, tile_height, *_ = struct.unpack_from(">8I", data, start + 8)
    (count,) = struct.unpack_from(">H", data, start + 40)
    components = [data[start + 42 + 3 * i : start + 45 + 3 * i] for i in range(count)]
    steps = {(c[1], c[2]) for c in components if len(c) == 3}
    if len(steps) > 1 or steps - {(1, 1)}:
        across, down = (max(step[i] for step in steps) for i in (0, 1))
        sides = [(width, tile_width, across), (height, tile_height, down)]
        if left or top or any(side % step or (tile < side and tile % step) for side, tile, step in sides):
            raise LayoutError(
                f"JPEG 2000 of {width - left}x{height - top} pixels with subsampled colors is only supported "
                "for even sides; convert it to PNG"
            )
    _check_channels(data)
    is_deep = any((c[0] & 0x7F) + 1 > 8 for c in components if c)
    return SampleFormat(is_deep=is_deep and mode not in ("I;16", *_INDEXED))


def _check_channels(data: bytes) -> None:
    """Refuse channels in another order and premultiplied alpha, which Pillow ignores for JPEG 2000."""
    for content in find_boxes(data, b"jp2h", b"cdef"):
        entries = [struct.unpack_from(">3H", content, i) for i in range(2, len(content) - 5, 6)]
        num_colors = sum(kind == 0 for _, kind, _ in entries)
        expected = [(i, 0, i + 1) for i in range(num_colors)]
        if sorted(e for e in entries if e[1] == 0) != expected:
            raise LayoutError("JPEG 2000 with reordered colors is not supported; convert it to PNG")
        if any(kind == 2 for _, kind, _ in entries):
            raise LayoutError("JPEG 2000 with premultiplied alpha is not supported; convert it to PNG")
    for content in find_boxes(data, b"jp2h", b"cmap"):
        columns = [content[i + 3] for i in range(0, len(content) - 3, 4) if content[i + 2] == 1]
        if columns != list(range(len(columns))):
            raise LayoutError("JPEG 2000 with a reordered palette is not supported; convert it to PNG")
