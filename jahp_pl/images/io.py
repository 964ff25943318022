"""Reads any still image file as 8-bit sRGB, for shards, evaluation and the codec. Pillow and numpy only.

Conversion steps, in order: apply the Exif rotation; scale 16-bit, 32-bit and float samples to 8 bits; convert colors
to sRGB according to the file (`colors`), unless the caller keeps their profile; composite transparency on white, as
browsers do. docs/images.md has a table of formats.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from jahp_pl.errors import JahpError, first_line
from jahp_pl.images import heif
from jahp_pl.images.colors import ColorError, color_space_of
from jahp_pl.images.conversion import describe_losses, on_white, orientation, profile_mode, to_8bit, to_rgb, upright
from jahp_pl.images.icc import transform_to_srgb
from jahp_pl.images.layouts import LayoutError, inspect_layout
from jahp_pl.images.structure import StructureError, check_structure, count_pages

SUFFIXES = heif.readable_suffixes() | {
    *(
        ".avif",
        ".bmp",
        ".gif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
}
"""Suffixes that mark image files when a folder or an archive is searched."""

MAX_IMAGE_PIXELS = 178_000_000
"""Limit on the pixels of an image, checked before decoding: 0.5 GB as RGB. Pillow's own limit is slightly higher."""

_REFUSED_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "WMF"})
"""Pillow's formats that other programs decode (EPS is a program that Ghostscript runs), or that hold any other format.
A file of any name may have them."""

Source = str | Path | bytes | BinaryIO
"""Path of an image file, its content, or a file opened in binary mode."""
RGB = npt.NDArray[np.uint8]
"""Image as (H, W, 3) uint8."""


class ImageError(JahpError, ValueError):
    """An unusable image; the message is one line that names it and the reason."""


class TransparencyError(ImageError):
    """An image with transparent pixels that may not be flattened."""


class ImageSize(NamedTuple):
    """Width and height in pixels as stored, before the Exif rotation."""

    width: int
    height: int


class Converted(NamedTuple):
    """An image as 8-bit RGB, and what was lost in the conversion."""

    rgb: RGB
    """(H, W, 3) uint8, upright, contiguous and writable."""
    lost: tuple[str, ...]
    """What the conversion lost, in a few words each; empty if it lost nothing."""
    icc: bytes
    """ICC profile of the RGB values; empty for sRGB."""


def import_formats() -> None:
    """Import Pillow's plugins for all formats now, and not when the first image of an unusual format is met."""
    Image.init()


def decode_rgb(source: Source, name: str | None = None) -> RGB:
    """Read one still image as 8-bit sRGB.

    Args:
        source: path, content, or file opened in binary mode.
        name: name for error messages; the path by default.

    Returns:
        (H, W, 3) uint8, upright, contiguous and writable.

    Raises:
        ImageError: if the file is missing, empty, truncated or not an image, has several frames or pages, exceeds
            `MAX_IMAGE_PIXELS`, or has 32-bit or float samples with an unknown white.
    """
    return convert_rgb(source, name).rgb


def load_rgb(source: Source, name: str | None = None) -> Image.Image:
    """Read one still image like `decode_rgb`, but keep it in Pillow.

    Cropping then copies only the crop, whereas converting the whole image to an array takes half as long as decoding.

    Returns:
        A loaded image in mode RGB.

    Raises:
        ImageError: see `decode_rgb`.
    """
    with _opened(source, name) as image:
        colors, samples = color_space_of(image), inspect_layout(image)
        image.load()
        return on_white(to_rgb(to_8bit(upright(image), samples), colors.icc, 0)[0])


def convert_rgb(source: Source, name: str | None = None, flatten: bool = True, max_icc: int = 0) -> Converted:
    """Read one still image like `decode_rgb`, report what was lost, and optionally keep its color space.

    Args:
        source: path, content, or file opened in binary mode.
        name: name for error messages; the path by default.
        flatten: composite transparent pixels on white; False refuses them.
        max_icc: an RGB image whose profile differs from sRGB and has at most this many bytes keeps its values and
            returns the profile; 0 converts every image.

    Raises:
        ImageError: see `decode_rgb`; with `flatten=False` also if a pixel is not opaque.
    """
    with _opened(source, name) as image:
        return convert_image(image, flatten, max_icc)


def convert_image(image: Image.Image, flatten: bool = True, max_icc: int = 0) -> Converted:
    """Convert the current frame of an image opened or created by Pillow like `convert_rgb`; `image` is not changed.

    Raises:
        ImageError: see `convert_rgb`.
        OSError: raised by Pillow if the image is not loaded yet and its file is damaged.
    """
    try:
        colors, samples = color_space_of(image), inspect_layout(image)  # before loading, which discards much metadata
    except (ColorError, LayoutError) as error:
        raise ImageError(str(error)) from None
    lost = list(describe_losses(image, colors, samples, max_icc))
    image.load()
    rgb, icc = to_rgb(to_8bit(upright(image), samples), colors.icc, max_icc)
    if rgb.mode == "RGBA" and rgb.getchannel("A").getextrema() != (255, 255):
        if not flatten:
            raise TransparencyError("transparent pixels would be lost; flatten the image onto a background")
        lost.append("transparency, composited on white")
    return Converted(np.array(on_white(rgb)), tuple(lost), icc)


def image_size(source: Source, name: str | None = None) -> ImageSize:
    """Read width and height from the header without decoding.

    Raises:
        ImageError: see `decode_rgb`; only for faults that the header shows.
    """
    with _opened(source, name) as image:
        return ImageSize(*image.size)


def kept_profile(source: Source, name: str | None = None, max_icc: int = 0) -> bytes:
    """Return the profile that `convert_rgb` would keep with these arguments, from the header alone.

    Raises:
        ImageError: see `image_size`.
    """
    with _opened(source, name) as image:
        icc = color_space_of(image).icc
        is_kept = profile_mode(image.mode) == "RGB" and 0 < len(icc) <= max_icc
        return icc if is_kept and transform_to_srgb(icc, "RGB") is not None else b""


def is_plain_jpeg(source: Source, name: str | None = None) -> bool:
    """Check whether a file is an upright 8-bit RGB JPEG in sRGB, which may be stored unchanged.

    Raises:
        ImageError: see `image_size`.
    """
    with _opened(source, name) as image:
        if image.format != "JPEG" or image.mode != "RGB" or orientation(image) != 1:
            return False
        icc = color_space_of(image).icc
        return not icc or transform_to_srgb(icc, "RGB") is None


@contextmanager
def _opened(source: Source, name: str | None) -> Iterator[ImageFile.ImageFile]:
    """Open and check an image for the block; convert every error of Pillow to an `ImageError`."""
    name = name or (str(source) if isinstance(source, str | Path) else getattr(source, "name", None) or "image")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it starts at half of our limit
            _check_structure(file)
            opened = _open(file)
        with opened as image:
            if image.format in _REFUSED_FORMATS:  # before anything is decoded
                raise UnidentifiedImageError
            _check_size_and_frames(image)
            yield image
    except ImageError as error:
        raise type(error)(f"{name}: {error}") from None
    except (ColorError, LayoutError, StructureError) as error:
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        remedy = f"convert it to PNG{heif.install_hint([Path(name).suffix])}"
        raise ImageError(f"{name}: not an image, or in a format that is not supported; {remedy}") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than {MAX_IMAGE_PIXELS:,} pixels; scale it down or cut it into tiles") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to read it; free some memory, or scale the image down") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        raise ImageError(f"{name}: damaged or unreadable image ({first_line(error)}); use an intact copy") from error


def _check_structure(file: str | Path | BinaryIO) -> None:
    if isinstance(file, str | Path):
        with open(file, "rb") as opened:  # noqa: PTH123  as Pillow opens it
            check_structure(opened)
    else:
        check_structure(file)


def _open(file: str | Path | BinaryIO) -> ImageFile.ImageFile:
    """Open an image, with the plugin for HEIC only if it needs it."""
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        if not heif.is_installed():
            raise
        heif.register()
        if not isinstance(file, str | Path):
            file.seek(0)
        return Image.open(file)


def _check_size_and_frames(image: ImageFile.ImageFile) -> None:
    """Refuse images with too many pixels, or several frames."""
    if image.width * image.height > MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{image.width}x{image.height} is more than {MAX_IMAGE_PIXELS:,} pixels; scale it down or cut it into tiles"
        )
    frames = count_pages(image.fp) if image.format == "TIFF" and image.fp else getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO files of cameras have a preview after the photograph
        raise ImageError(f"has {frames} frames or pages; give one still image")
