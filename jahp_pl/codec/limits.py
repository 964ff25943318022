"""Limits on what a decoder accepts from untrusted files.

A payload of any length can encode any number of symbols, so the size of a file bounds neither pixels nor steps.
"""

from __future__ import annotations

import math
import time

from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.strides import STRIDE

ACCEPTED_PIXELS = 2**25
"""Default limit of pixels that a decoder accepts, 34 million."""

LEAST_STEPS = 1024
"""Decoding steps that are always accepted; they take less than a second."""


def max_steps(max_pixels: int) -> int:
    """Return the accepted number of decoding steps: twice those of a square image, and at least `LEAST_STEPS`."""
    return max(LEAST_STEPS, math.isqrt(max_pixels) // 2)


def needed_pixels(height: int, width: int) -> int:
    """Return the smallest `max_pixels` with which every model decodes an image of this size."""
    steps = -(-width // STRIDE) + 3 * (-(-height // STRIDE) - 1)
    return max(height * width, (2 * steps) ** 2 if steps > LEAST_STEPS else 0)


def check_steps(height: int, width: int, max_pixels: int) -> None:
    """Refuse a shape that takes too many decoding steps, each of which costs as much as a thousand pixels.

    Args:
        height: rows of latents.
        width: columns of latents.
        max_pixels: largest image to accept.

    Raises:
        BitstreamError: if width + 3 (height - 1) exceeds `max_steps`.
    """
    steps = width + 3 * (height - 1)
    if steps > max_steps(max_pixels):
        raise BitstreamError(
            f"the file states {width} x {height} latents, which take {steps} steps to decode, more than the "
            f"{max_steps(max_pixels)} accepted; raise max_pixels to {(2 * steps) ** 2} if you trust it"
        )


class Deadline:
    """Ends a decoding call that takes too long: the time depends on the pixels that a file claims, not on its length.

    Args:
        seconds: from now on; None never ends.
    """

    def __init__(self, seconds: float | None) -> None:
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
