"""Limits what a decoder accepts from untrusted files.

A payload of any length can encode any number of symbols, so the size of a file bounds neither pixels nor steps. By
default, a decoder therefore accepts only as many pixels as the bytes of a real file hold.
"""

from __future__ import annotations

import math
import time
from numbers import Integral, Real

from jahp_pl.codec.bitstream import DEFAULT_MAX_PIXELS, BitstreamError
from jahp_pl.strides import STRIDE

PIXELS_PER_BYTE = 2**12
"""Default limit on pixels per byte of the file. With the bundled models, an image of a single color takes one byte per
2,000 pixels, and a photograph at the lowest quality one byte per 170."""
ALWAYS_ACCEPTED_PIXELS = 2**20
"""Pixels that are accepted from even the shortest file; decoding them takes a few seconds."""
ALWAYS_ACCEPTED_STEPS = 1024
"""Decoding steps that are always accepted; they take less than a second."""


def size_based_pixel_limit(num_bytes: int) -> int:
    """Return the default limit on the pixels of a file of this length; `DEFAULT_MAX_PIXELS` applies as well."""
    return max(ALWAYS_ACCEPTED_PIXELS, PIXELS_PER_BYTE * num_bytes)


def accepted_pixels(data: bytes, max_pixels: int | None) -> int:
    """Return the number of pixels to accept from a file: `max_pixels`, or the default if it is None.

    Raises:
        TypeError: if `data` is not bytes, or `max_pixels` is not a whole number.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a file must be given as bytes, not {type(data).__name__}; read it first")
    if max_pixels is None:
        return min(DEFAULT_MAX_PIXELS, size_based_pixel_limit(len(data)))
    if not isinstance(max_pixels, Integral):
        raise TypeError(f"max_pixels {max_pixels!r}: must be a whole number or None")
    return int(max_pixels)


def num_steps(height: int, width: int) -> int:
    """Return the number of wavefronts in (height, width) latents, see `entropy.wavefront`."""
    return width + 3 * (height - 1)


def max_steps(max_pixels: int) -> int:
    """Return the maximum number of decoding steps: twice those of a square image, at least `ALWAYS_ACCEPTED_STEPS`."""
    # An image with sides of s pixels takes s / 16 + 3 (s / 16 - 1) steps, which is less than s / 4.
    return max(ALWAYS_ACCEPTED_STEPS, math.isqrt(max_pixels) // 2)


def required_max_pixels(height: int, width: int) -> int:
    """Return the smallest `max_pixels` with which every model decodes an image of this size."""
    steps = num_steps(-(-height // STRIDE), -(-width // STRIDE))
    return max(height * width, (2 * steps) ** 2 if steps > ALWAYS_ACCEPTED_STEPS else 0)  # the inverse of `max_steps`


def check_steps(height: int, width: int, max_pixels: int | None) -> None:
    """Refuse a shape that takes too many decoding steps, each of which takes as long as a thousand pixels.

    Args:
        height: rows of latents.
        width: columns of latents.
        max_pixels: maximum number of pixels to accept; None for `DEFAULT_MAX_PIXELS`.

    Raises:
        BitstreamError: if width + 3 (height - 1) exceeds `max_steps`.
    """
    steps = num_steps(height, width)
    most = max_steps(DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels)
    if steps > most:
        raise BitstreamError(
            f"the file declares {width} x {height} latents, which take {steps} steps to decode, more than the "
            f"{most} accepted; raise max_pixels to {(2 * steps) ** 2} if you trust it"
        )


class Deadline:
    """A time limit for one decoding call, shared by all files that it decodes.

    Args:
        seconds: limit, from now on; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and (not isinstance(seconds, Real) or math.isnan(seconds)):
            raise TypeError(f"max_seconds {seconds!r}: must be a number of seconds or None")
        self.seconds = seconds
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raise an error if the time is up; called between steps.

        Raises:
            BitstreamError: if the time is up.
        """
        if time.monotonic() > self._end:
            raise BitstreamError(
                f"the file takes longer to decode than the {self.seconds:g} seconds allowed; raise max_seconds if you "
                "trust it"
            )
