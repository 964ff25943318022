"""Any still image file to 8-bit sRGB, in one place for shards, evaluation and the codec. Pillow and numpy only.

What is done, in this order: the EXIF rotation is applied; 16-bit, 32-bit and float samples are scaled to 8 bits;
colours are converted to sRGB from what the file says of them (`colours`), unless the caller keeps their profile;
transparency is put on white, as browsers show it. docs/images.md has a table of what is read how.
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
from PIL import Image, UnidentifiedImageError

from jahp_pl.errors import JahpError
from jahp_pl.images.colours import ColourError, colours_of
from jahp_pl.images.conversion import losses, on_white, orientation, profile_mode, to_8bit, to_rgb, upright
from jahp_pl.images.icc import rgb_to_srgb, transform_to_srgb
from jahp_pl.images.layouts import LayoutError, checked

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Names that are taken for images when a folder or an archive is searched."""

MAX_PIXELS = 178_000_000
"""Larger images are refused before they are decoded: 0.5 GB as RGB. Pillow has its own limit just above."""

Source = str | Path | bytes | BinaryIO
RGB = npt.NDArray[np.uint8]

_HOLD_PROFILES = ("AVIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that Pillow writes with an ICC profile."""


class ImageError(JahpError, ValueError):
    """An image that cannot be used; the message is one line that names it and says why."""


class TransparencyError(ImageError):
    """Pixels that are not opaque, where they may not be flattened."""


class ImageSize(NamedTuple):
    """Pixels, as stored: before the EXIF rotation."""

    width: int
    height: int


class Converted(NamedTuple):
    """An image as 8-bit RGB, and what that cost."""

    rgb: RGB
    """(H, W, 3) uint8, upright, contiguous and writable."""
    lost: tuple[str, ...]
    """What of the original the pixels no longer tell, a few words each; empty where nothing was lost."""
    icc: bytes
    """ICC profile that says what RGB means here; empty for sRGB."""


def decode_rgb(source: Source, name: str | None = None) -> RGB:
    """Read one still image as 8-bit sRGB.

    Args:
        source: path, content, or file opened in binary mode.
        name: what to call it in an error; the path by default.
    Returns:
        (H, W, 3) uint8, upright, contiguous and writable.
    Raises:
        ImageError: missing, empty, truncated or foreign file; animation or several pages; more than `MAX_PIXELS`;
            32-bit or float samples without a white that can be told.
    """
    return convert_rgb(source, name).rgb


def load_rgb(source: Source, name: str | None = None) -> Image.Image:
    """As `decode_rgb`, left with Pillow: a crop of it costs the crop alone, all of it as an array half as much as
    decoding.

    Returns:
        In mode RGB, loaded.
    Raises:
        ImageError: as `decode_rgb`.
    """
    with _opened(source, name) as image:
        colours, samples = colours_of(image), checked(image)
        image.load()
        return on_white(to_rgb(to_8bit(upright(image), samples), colours.icc, 0)[0])


def convert_rgb(source: Source, name: str | None = None, flatten: bool = True, max_icc: int = 0) -> Converted:
    """As `decode_rgb`, and say what was lost on the way; on request, colours stay in their own space.

    Args:
        source: path, content, or file opened in binary mode.
        name: what to call it in an error; the path by default.
        flatten: put transparent pixels on white; False refuses them.
        max_icc: an RGB image whose profile is not that of sRGB and has at most so many bytes keeps its numbers, and the
            profile is given back with them; 0 converts every image.

    Raises:
        ImageError: as `decode_rgb`; with `flatten=False` also a pixel that is not opaque.
    """
    with _opened(source, name) as image:
        return convert_image(image, flatten, max_icc)


def convert_image(image: Image.Image, flatten: bool = True, max_icc: int = 0) -> Converted:
    """As `convert_rgb`, of an image that Pillow has opened or made, of whose frames the current one; it stays as it is.

    Raises:
        ImageError: see `convert_rgb`.
        OSError: of Pillow, where the image is not loaded yet and its file is damaged.
    """
    try:
        colours, samples = colours_of(image), checked(image)  # before loading, which forgets much of the header
    except (ColourError, LayoutError) as error:
        raise ImageError(str(error)) from None
    lost = list(losses(image, colours, samples, max_icc))
    image.load()
    rgb, icc = to_rgb(to_8bit(upright(image), samples), colours.icc, max_icc)
    if rgb.mode == "RGBA" and rgb.getchannel("A").getextrema() != (255, 255):
        if not flatten:
            raise TransparencyError("has transparent pixels, which would be lost; put them on a background")
        lost.append("transparency, put on white")
    return Converted(np.array(on_white(rgb)), tuple(lost), icc)


def image_size(source: Source, name: str | None = None) -> ImageSize:
    """Width and height from the header alone, without decoding.

    Raises:
        ImageError: as `decode_rgb`, as far as a header tells.
    """
    with _opened(source, name) as image:
        return ImageSize(*image.size)


def kept_profile(source: Source, name: str | None = None, max_icc: int = 0) -> bytes:
    """The profile that `convert_rgb` gives back with these arguments, from the header alone.

    Raises:
        ImageError: as `image_size`.
    """
    with _opened(source, name) as image:
        icc = colours_of(image).icc
        is_kept = profile_mode(image.mode) == "RGB" and 0 < len(icc) <= max_icc
        return icc if is_kept and transform_to_srgb(icc, "RGB") is not None else b""


def is_plain_jpeg(source: Source, name: str | None = None) -> bool:
    """Whether the file is an upright 8-bit RGB JPEG in sRGB: then its pixels are final and it may be stored as it is.

    Raises:
        ImageError: as `image_size`.
    """
    with _opened(source, name) as image:
        if image.format != "JPEG" or image.mode != "RGB" or orientation(image) != 1:
            return False
        icc = colours_of(image).icc
        return not icc or transform_to_srgb(icc, "RGB") is None


@contextmanager
def _opened(source: Source, name: str | None) -> Iterator[Image.Image]:
    """Open, check and hand out an image; whatever Pillow raises meanwhile becomes one `ImageError`."""
    name = name or (str(source) if isinstance(source, str | Path) else getattr(source, "name", None) or "image")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # from half of our own limit on
            opened = Image.open(file)
        with opened as image:
            _check(image)
            yield image
    except ImageError as error:
        raise type(error)(f"{name}: {error}") from None
    except (ColourError, LayoutError) as error:
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image, or in a format that is not supported; convert it to PNG") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels; scale it down or cut it into tiles") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImageError(f"{name}: damaged or unreadable image ({reason})") from error


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{image.width}x{image.height} is more than {MAX_PIXELS:,} pixels; scale it down or cut it into tiles"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # cameras put a preview behind the photograph and call it MPO
        raise ImageError(f"holds {frames} frames or pages; give one still image")


def encode_rgb(rgb: RGB, suffix: str, icc: bytes = b"") -> bytes:
    """The content of an image file that shows the colours meant, in every format.

    Args:
        rgb: (H, W, 3) uint8.
        suffix: of the format, with its dot, e.g. .png.
        icc: ICC profile of `rgb`, empty for sRGB. It is put into the file; for a format that has no room for one, the
            colours are converted to sRGB.

    Raises:
        ImageError: a suffix of no format that Pillow writes, or an image that the format cannot hold.
    """
    Image.init()
    format_name = Image.EXTENSION.get(suffix.lower())
    if format_name not in Image.SAVE:
        raise ImageError(f"no image format has the suffix '{suffix}'; use .png, .webp or .jpg")
    options = {"icc_profile": icc} if icc and format_name in _HOLD_PROFILES else {}
    pixels = rgb_to_srgb(rgb, icc) if icc and not options else rgb
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, format_name, **options)
    except (OSError, ValueError) as error:  # JPEG and WebP have a largest side
        raise ImageError(f"{suffix} cannot hold it ({str(error).strip()}); use .png") from None
    return buffer.getvalue()
