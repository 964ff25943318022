"""Codes images with classical codecs: Pillow's, and those of the extra `classical` from `classical_optional`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, features

from jahp_pl.evaluation import EvaluationError, classical_optional
from jahp_pl.images.io import RGB


class ClassicalCodec(NamedTuple):
    """Classical codec with its range of qualities."""

    title: str
    """Name in tables and figures."""
    qualities: Sequence[int]
    """All values of the quality setting, from the smallest file to the largest."""
    curve_qualities: Sequence[int]
    """Qualities of its curve; on photographs, from about 0.05 bits per pixel (or the codec's minimum) to 3."""
    knob: str
    """Name of the quality setting."""
    encode: Callable[[RGB, int], bytes]
    """Encodes an image, (H, W, 3) uint8, at a quality, and returns the content of the file."""
    decode: Callable[[bytes], RGB]
    """Decodes the content of a file to (H, W, 3) uint8; odd sides are one pixel longer if the codec pads them."""
    settings: Callable[[], str]
    """Describes library, version and non-default options; raises EvaluationError if the library is not installed."""


class ClassicalFile(NamedTuple):
    """One image coded at one quality."""

    codec: ClassicalCodec
    quality: int
    data: bytes
    height: int
    """Height of the image in pixels."""
    width: int
    """Width of the image in pixels."""

    def decode(self) -> RGB:
        """Decode the file to (H, W, 3) uint8.

        Raises:
            EvaluationError: if the codec cannot read its own file.
        """
        with _evaluation_errors(self.codec):
            return self.codec.decode(self.data)[: self.height, : self.width]


def encode(codec: ClassicalCodec, image: RGB, quality: int) -> ClassicalFile:
    """Code one image (H, W, 3) uint8 at one quality.

    Raises:
        EvaluationError: if the codec's package is not installed, or it cannot code this image.
    """
    with _evaluation_errors(codec):
        data = codec.encode(image, quality)
    return ClassicalFile(codec, quality, data, *image.shape[:2])


@contextmanager
def _evaluation_errors(codec: ClassicalCodec) -> Iterator[None]:
    """Convert errors of a codec's library to an EvaluationError."""
    try:
        yield
    except classical_optional.MissingPackageError:
        raise
    except (ValueError, OSError, RuntimeError, LookupError) as error:  # each library raises its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EvaluationError(
            f"{codec.title} cannot code this image ({reason}); leave out the codec or the image"
        ) from None


def encode_at_least(codec: ClassicalCodec, image: RGB, num_bytes: int) -> ClassicalFile:
    """Code an image at the lowest quality that needs at least `num_bytes`, or at the highest if none does.

    A comparison with this file cannot disadvantage the classical codec, because it gets slightly more bytes.

    Args:
        codec: the codec.
        image: (H, W, 3) uint8.
        num_bytes: minimum size of the file.

    Raises:
        EvaluationError: as for `encode`.
    """
    low, high = 0, len(codec.qualities) - 1
    while low < high:
        middle = (low + high) // 2
        if len(encode(codec, image, codec.qualities[middle]).data) >= num_bytes:
            high = middle
        else:
            low = middle + 1
    return encode(codec, image, codec.qualities[low])


def encode_nearest(codec: ClassicalCodec, image: RGB, num_bytes: int) -> ClassicalFile:
    """Code an image at the quality whose file is closest in size to `num_bytes`, as a ratio.

    Args:
        codec: the codec.
        image: (H, W, 3) uint8.
        num_bytes: size to approximate, at least 1.

    Raises:
        EvaluationError: as for `encode`.
    """
    above = encode_at_least(codec, image, num_bytes)
    position = codec.qualities.index(above.quality)
    below = encode(codec, image, codec.qualities[max(position - 1, 0)])
    return above if len(above.data) / num_bytes <= num_bytes / len(below.data) else below


def _pillow(name: str, **options: object) -> Callable[[RGB, int], bytes]:
    """Create an encoder that saves with Pillow in the format `name`."""

    def encode(image: RGB, quality: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, name, quality=quality, **options)
        return buffer.getvalue()

    return encode


def _jpeg2000(is_irreversible: bool) -> Callable[[RGB, int], bytes]:
    """Create a JPEG 2000 encoder with the 9/7 wavelet if `is_irreversible`, otherwise with the 5/3 wavelet."""

    # mct converts to YCbCr; without it, PSNR is several dB lower. The codestream is bare; a container takes 85 bytes.
    def encode(image: RGB, quality: int) -> bytes:
        buffer = io.BytesIO()
        rate = {"quality_mode": "rates", "quality_layers": [2400 / quality]}
        Image.fromarray(image).save(buffer, "JPEG2000", mct=1, irreversible=is_irreversible, no_jp2=True, **rate)
        return buffer.getvalue()

    return encode


def _decode(data: bytes) -> RGB:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _settings(library: str, options: str) -> Callable[[], str]:
    """Create a function that describes a library of Pillow and the options of an encoder."""

    def settings() -> str:
        # libjpeg_turbo describes how the library was built; Pillow may use another libjpeg.
        if not features.check("jpg" if library == "libjpeg_turbo" else library):
            raise EvaluationError(
                f"Pillow {PIL.__version__} has no {library} here; pip install --force-reinstall pillow, or leave out "
                "this codec"
            )
        return f"{library} {features.version(library) or ''} in Pillow {PIL.__version__}, {options}"

    return settings


QUALITY = "quality"
_JPEG = (1, 2, 4, 6, 8, 11, 15, 20, 30, 40, 50, 60, 70, 80, 86, 90, 93, 95)
_WEBP = (0, 1, 3, 6, 10, 16, 25, 40, 55, 70, 80, 86, 90, 93, 95)
_AVIF = (0, 4, 8, 12, 17, 23, 30, 38, 47, 57, 67, 76, 84, 90)
_RATES = (5, 8, 12, 18, 25, 35, 50, 70, 100, 140, 200, 300)


def _avif(chroma: str) -> Callable[[RGB, int], bytes]:
    return _pillow(
        "AVIF", speed=4, subsampling=chroma, max_threads=1, autotiling=False, advanced=[("tune", "psnr")]
    )  # fmt: skip


CODECS = {
    "jpeg": ClassicalCodec(
        "JPEG 4:2:0", range(1, 96), _JPEG, QUALITY,
        _pillow("JPEG", subsampling="4:2:0", optimize=True), _decode, _settings("libjpeg_turbo", "optimised Huffman"),
    ),
    "jpeg-plain": ClassicalCodec(
        "JPEG 4:2:0 plain", range(1, 96), _JPEG, QUALITY,
        _pillow("JPEG", subsampling="4:2:0"), _decode, _settings("libjpeg_turbo", "the standard's Huffman tables"),
    ),
    "jpeg444": ClassicalCodec(
        "JPEG 4:4:4", range(1, 96), _JPEG, QUALITY,
        _pillow("JPEG", subsampling="4:4:4", optimize=True), _decode, _settings("libjpeg_turbo", "optimised Huffman"),
    ),
    "jpeg2000": ClassicalCodec(
        "JPEG 2000 9/7", range(2, 601), _RATES, "hundredths of a bit per pixel asked for",
        _jpeg2000(True), _decode, _settings("jpg_2000", "OpenJPEG, 9/7 wavelet, YCbCr, one layer, bare codestream"),
    ),
    "jpeg2000-53": ClassicalCodec(
        "JPEG 2000 5/3", range(2, 601), _RATES, "hundredths of a bit per pixel asked for",
        _jpeg2000(False), _decode, _settings("jpg_2000", "OpenJPEG, 5/3 wavelet, YCbCr, one layer, bare codestream"),
    ),
    "webp": ClassicalCodec(
        "WebP", range(101), _WEBP, QUALITY,
        _pillow("WEBP", method=6), _decode, _settings("webp", "method 6"),
    ),
    "avif": ClassicalCodec(
        "AVIF 4:2:0", range(101), _AVIF, QUALITY,
        _avif("4:2:0"), _decode, _settings("avif", "libaom, speed 4, tuned for PSNR, one thread"),
    ),
    "avif444": ClassicalCodec(
        "AVIF 4:4:4", range(101), _AVIF, QUALITY,
        _avif("4:4:4"), _decode, _settings("avif", "libaom, speed 4, tuned for PSNR, one thread"),
    ),
    "hevc": ClassicalCodec(
        "HEVC 4:2:0", range(101), (0, 3, 7, 12, 18, 25, 33, 42, 52, 62), QUALITY,
        classical_optional.hevc(420), classical_optional.decode_hevc, classical_optional.hevc_settings,
    ),
    "hevc444": ClassicalCodec(
        "HEVC 4:4:4", range(101), (0, 3, 7, 12, 18, 25, 33, 42, 52, 62), QUALITY,
        classical_optional.hevc(444), classical_optional.decode_hevc, classical_optional.hevc_settings,
    ),
    "jxl": ClassicalCodec(
        "JPEG XL", range(1, 100), (1, 5, 10, 16, 22, 30, 40, 50, 60, 70, 80, 87, 92, 95), QUALITY,
        classical_optional.encode_jxl, classical_optional.decode_jxl, classical_optional.jxl_settings,
    ),
    "vvc": ClassicalCodec(
        "VVC 4:2:0", range(63, 4, -1), (53, 49, 45, 41, 37, 33, 29, 25, 21, 17), "QP",
        classical_optional.encode_vvc, classical_optional.decode_vvc, classical_optional.vvc_settings,
    ),
}  # fmt: skip
"""Codecs by their name on the command line. Published JPEG and JPEG 2000 curves do not document their settings;
jpeg-plain and jpeg2000-53 are within 3 % of them. In the same formats, jpeg and jpeg2000 need an eighth fewer bits."""
