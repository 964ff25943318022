"""One image on its way into a file: analysed once, then rounded, coded and judged at any level of rate. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.bitstream import LATENT_MAX, LATENT_MIN, LEVEL_STEPS, Header, pack
from jahp_pl.codec.entropy.range_coder import IntArray, Writer

Array = TypeVar("Array")
"""What a runtime holds integers in: a tensor or an array."""
Samples = npt.NDArray[np.uint8]


class Encoded(NamedTuple, Generic[Array]):
    """A file and what went into it."""

    data: bytes
    """The whole file."""
    y_hat: Array
    """(M, h, w) int32: the latents in it."""
    z_hat: Array | None
    """(N, ceil(h / 4), ceil(w / 4)) int32: the hyper-latents in it."""
    header_bytes: int
    """Bytes of the file that are not payload."""
    level: float | None = None
    """Level of rate; None for a model of one rate."""


class Quantized(NamedTuple):
    """Latents of a level, as they are coded."""

    y_hat: IntArray
    """(M, h, w)."""
    z_hat: IntArray | None
    """(N, ceil(h / 4), ceil(w / 4)); None on rungs without side information."""


class Analysed(Protocol):
    """An image and its latents before they are quantized, in some runtime."""

    @property
    def image(self) -> Samples:
        """(3, H, W)."""

    @property
    def num_rows(self) -> int:
        """Of latents."""

    def quantize(self, level: float | None, rows: npt.NDArray[np.int64] | None = None) -> Quantized:
        """The nearest integers at a level of rate, of some rows of latents or of all."""

    def refine(self, level: float | None) -> Quantized:
        """What is to be coded: the nearest integers, or what a search found better."""

    def synthesise(self, y_hat: IntArray, level: float | None) -> Samples:
        """What a file with these latents shows, (3, H, W), apart from `to_gray`."""


Write = Callable[[Writer, IntArray, "IntArray | None"], None]
"""Appends y_hat (M, h, w) and z_hat (N, ...) or None to a payload."""


class ImageEncoder:
    """Makes files of an image, at one level after the other.

    Args:
        analysed: the image and its latents.
        write: codes quantized latents.
        fingerprint: of the codec.
        icc: colour profile; empty for sRGB.
        is_refined: latents are searched for, see `Analysed.refine`.
    """

    def __init__(
        self, analysed: Analysed, write: Write, fingerprint: bytes, icc: bytes, is_refined: bool = False
    ) -> None:
        self.analysed, self.write, self.fingerprint, self.icc = analysed, write, fingerprint, icc
        self.is_refined = is_refined

    @property
    def num_pixels(self) -> int:
        """Of the image."""
        return int(self.analysed.image[0].size)

    @property
    def num_rows(self) -> int:
        """Of latents."""
        return self.analysed.num_rows

    def encode(self, level: int | None) -> Encoded[IntArray]:
        """A whole file.

        Args:
            level: of rate, in `LEVEL_STEPS`; None for a model of one rate.
        """
        y_hat, z_hat = self.analysed.refine(level_of(level))
        writer = Writer()
        self.write(writer, y_hat, z_hat)
        payload, image = writer.payload(), self.analysed.image
        _, height, width = image.shape
        span = int(y_hat.min()), int(y_hat.max())
        data = pack(Header(self.fingerprint, width, height, *span, self.icc, level, is_gray(image)), payload)
        return Encoded(data, y_hat, z_hat, len(data) - len(payload), level_of(level))

    def count_bits(self, rows: npt.NDArray[np.int64], level: int) -> float:
        """Bits of some rows of latents at a level, under the codec's exact parameters."""
        writer = Writer(measure=True)
        self.write(writer, *self.analysed.quantize(level_of(level), rows))
        return writer.bits

    def psnr(self, file: Encoded[IntArray]) -> float:
        """dB of what a file of this image shows."""
        return self._psnr(file.y_hat, file.level)

    def plain_psnr(self, level: int) -> float:
        """dB of what a file of this level would show, without a search."""
        return self._psnr(self.analysed.quantize(level_of(level)).y_hat, level_of(level))

    def _psnr(self, y_hat: IntArray, level: float | None) -> float:
        image, shown = self.analysed.image, self.analysed.synthesise(y_hat, level)
        difference = image.astype(np.float32) - (to_gray(shown) if is_gray(image) else shown)
        mse = float(np.square(difference).mean(dtype=np.float64))
        return 10 * float(np.log10(255**2 / mse)) if mse else float("inf")


def level_of(steps: int | None) -> float | None:
    """The level that a header names, from 0 to the number of levels less 1; None for a model of one rate."""
    return None if steps is None else steps / LEVEL_STEPS


def is_gray(image: Samples) -> bool:
    """Whether (3, H, W) has R = G = B everywhere."""
    return bool((image[0] == image[1]).all()) and bool((image[0] == image[2]).all())


def to_gray(image: Samples) -> Samples:
    """The luma of BT.601 in all channels: (3, H, W) -> (3, H, W), in integers."""
    red, green, blue = image.astype(np.int32)
    luma = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return np.repeat(luma.astype(np.uint8)[None], 3, axis=0)


def to_integers(latents: npt.NDArray[np.float32]) -> IntArray:
    """(C, h, w) -> the nearest integers, halves to even.

    Raises:
        ValueError: numbers that are not finite or beyond 16 bits.
    """
    rounded = np.rint(latents)
    if not np.isfinite(rounded).all():
        raise ValueError("the model gives latents that are not finite; its weights are damaged or have diverged")
    if float(np.abs(rounded).max()) > LATENT_MAX:
        raise ValueError(f"latents beyond {LATENT_MIN} to {LATENT_MAX}; the model has diverged")
    return np.ascontiguousarray(rounded).astype(np.int32)
