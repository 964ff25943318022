"""What a decoder accepts from outside, where thirty bytes may ask for everything.

A payload of any length stands for any number of symbols, so neither pixels nor steps are bounded by the size of a file.
"""

from __future__ import annotations

import math

from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.strides import STRIDE

ACCEPTED_PIXELS = 2**25
"""Pixels, 34 million, that a decoder accepts unless it is told otherwise."""

LEAST_STEPS = 1024


def max_steps(max_pixels: int) -> int:
    """Steps that are accepted with so many pixels: twice those of a square image, and as many as cost no second."""
    return max(LEAST_STEPS, math.isqrt(max_pixels) // 2)


def needed_pixels(height: int, width: int) -> int:
    """The least `max_pixels` with which an image of this size is decoded by every model."""
    steps = -(-width // STRIDE) + 3 * (-(-height // STRIDE) - 1)
    return max(height * width, (2 * steps) ** 2 if steps > LEAST_STEPS else 0)


def check_steps(height: int, width: int, max_pixels: int) -> None:
    """Refuse an image that is decoded in too many steps, for its shape: each costs as much as a thousand pixels.

    Args:
        height: of the map of latents.
        width: likewise.
        max_pixels: largest image to accept.

    Raises:
        BitstreamError: W + 3 (H - 1) steps are more than `max_steps`.
    """
    steps = width + 3 * (height - 1)
    if steps > max_steps(max_pixels):
        raise BitstreamError(
            f"the file says it holds {width} x {height} latents, which take {steps} steps to decode, more than the "
            f"{max_steps(max_pixels)} accepted; raise max_pixels to {(2 * steps) ** 2} if you trust it"
        )
