"""Latents of an image, and the results of encoding and decoding, as tensors or arrays. No torch."""

from __future__ import annotations

from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from jahp_pl.codec.arrays import Float32Array, IntArray

Rgb = TypeVar("Rgb")
"""Type of images in a runtime: a uint8 tensor or array."""
Integers = TypeVar("Integers")
"""Type of latents in a runtime: an int32 tensor or array."""


class Latents(NamedTuple, Generic[Integers]):
    """Quantized latents and hyper-latents of one image."""

    y_hat: Integers
    """(M, h, w) int32."""
    z_hat: Integers | None
    """(N, ceil(h / 4), ceil(w / 4)) int32; None without side information."""


SearchLength = Literal["none", "brief", "full"]
"""How long an encoder searches for better latents than g_a(x). A brief search predicts the size of the file that a full
one makes."""


class RealLatents(NamedTuple):
    """Latents of one image to be rounded to the nearest integers, and hyper-latents that are integers already."""

    y: Float32Array
    """(M, h, w): g_a(x), scaled by the gains of a rate level, or the result of a search that starts from it."""
    z_hat: IntArray | None
    """See `Latents`."""


class Encoded(NamedTuple, Generic[Integers]):
    """A file and the latents in it."""

    data: bytes
    """The whole file."""
    y_hat: Integers
    """(M, h, w) int32: latents in the file."""
    z_hat: Integers | None
    """(N, ceil(h / 4), ceil(w / 4)) int32: hyper-latents in the file; None without side information."""
    header_bytes: int
    """Bytes of the file that are not payload."""
    level: float | None = None
    """Rate level, from 0 to the number of levels minus 1; None for a single-rate model."""
    psnr: float | None = None
    """PSNR of the decoded image in dB; None unless a PSNR was the target."""
    bits: float | None = None
    """Cross-entropy of the latents under the codec's exact parameters in bits; None unless it was to be measured."""


class Decoded(NamedTuple, Generic[Rgb, Integers]):
    """The image and the latents that were decoded from a file."""

    image: Rgb
    """(3, H, W) uint8."""
    y_hat: Integers
    """(M, h, w) int32."""
    z_hat: Integers | None
    """(N, ceil(h / 4), ceil(w / 4)) int32; None without side information."""
    icc: bytes = b""
    """Color profile of the image; empty for sRGB."""
    level: float | None = None
    """Rate level, from 0 to the number of levels minus 1; None for a single-rate model."""


def count_mismatches(encoded: Encoded[Any], decoded: Decoded[Any, Any]) -> int:
    """Count the latents and hyper-latents that differ after decoding; if the shapes differ, count all of them.

    Args:
        encoded: result of any runtime, with tensors on the CPU.
        decoded: result of any runtime for the same file.
    """
    pairs = [(encoded.y_hat, decoded.y_hat)]
    if encoded.z_hat is not None and decoded.z_hat is not None:
        pairs.append((encoded.z_hat, decoded.z_hat))
    arrays = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return sum(int((a != b).sum()) if a.shape == b.shape else a.size for a, b in arrays)
