"""Classical codecs to compare with, as Pillow has them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

RGB = npt.NDArray[np.uint8]


class ClassicalCodec(NamedTuple):
    """One codec and its ladder of qualities."""

    title: str
    """How tables and figures call it."""
    qualities: range
    """From the smallest file to the largest."""
    encode: Callable[[RGB, int], bytes]
    """Image (H, W, 3) uint8 and quality -> file."""


class ClassicalFile(NamedTuple):
    """One image coded at one quality."""

    quality: int
    data: bytes

    def decode(self) -> RGB:
        """(H, W, 3) uint8."""
        with Image.open(io.BytesIO(self.data)) as image:
            return np.array(image.convert("RGB"))


def _jpeg(subsampling: str) -> Callable[[RGB, int], bytes]:
    def encode(image: RGB, quality: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
        return buffer.getvalue()

    return encode


CODECS = {
    "jpeg": ClassicalCodec("JPEG 4:2:0", range(1, 96), _jpeg("4:2:0")),
    "jpeg444": ClassicalCodec("JPEG 4:4:4", range(1, 96), _jpeg("4:4:4")),
}
"""By the name on the command line."""


def at_least(codec: ClassicalCodec, image: RGB, num_bytes: int) -> ClassicalFile:
    """The smallest file of a codec's ladder that has at least so many bytes; the largest where none has.

    A comparison at this file is one at equal rate that errs in favour of the classical codec.

    Args:
        image: (H, W, 3) uint8.
        num_bytes: size to reach.
    """
    low, high = 0, len(codec.qualities) - 1
    while low < high:
        middle = (low + high) // 2
        if len(codec.encode(image, codec.qualities[middle])) >= num_bytes:
            high = middle
        else:
            low = middle + 1
    quality = codec.qualities[low]
    return ClassicalFile(quality, codec.encode(image, quality))
