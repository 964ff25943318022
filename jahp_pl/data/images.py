"""Any still image file to 8-bit sRGB, in one place for shards, evaluation and the codec. Pillow and numpy only.

What is done, in this order: the EXIF rotation is applied; 16-bit, 32-bit and float samples are scaled to 8 bits;
colours are converted to sRGB through the embedded ICC profile, unless the caller keeps that; transparency is put on
white, as browsers show it.
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

from jahp_pl.data.profiles import apply, rgb_to_srgb, transform_to_srgb

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Names that are taken for images when a folder or an archive is searched."""

MAX_PIXELS = 178_000_000
"""Larger images are refused before they are decoded: 0.5 GB as RGB. Pillow has its own limit just above."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NUMERIC = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")

Source = str | Path | bytes | BinaryIO
RGB = npt.NDArray[np.uint8]

_HOLD_PROFILES = ("AVIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that Pillow writes with an ICC profile."""


class ImageError(ValueError):
    """An image that cannot be used; the message is one line that names it and says why."""


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
        image.load()
        return _on_white(_to_rgb(_to_8bit(_upright(image)), 0)[0])


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
    lost = list(_losses(image, max_icc))  # from the header: loading forgets how many bits the file has
    image.load()
    rgb, icc = _to_rgb(_to_8bit(_upright(image)), max_icc)
    if rgb.mode == "RGBA" and rgb.getchannel("A").getextrema() != (255, 255):
        if not flatten:
            raise ImageError("has transparent pixels, which would be lost; --flatten puts them on white")
        lost.append("transparency, put on white")
    return Converted(np.array(_on_white(rgb)), tuple(lost), icc)


def _losses(image: Image.Image, max_icc: int) -> Iterator[str]:
    """What becomes of an image that is open but not loaded, as far as its header tells."""
    layout = str([tile[3] for tile in getattr(image, "tile", [])])  # e.g. "RGB;16B", which Pillow reads as 8-bit RGB
    if image.mode in _NUMERIC or ";16" in layout:
        yield "bits beyond 8 a sample"
    if image.mode == "CMYK":
        yield "CMYK, made sRGB"
    elif image.mode in ("RGB", "RGBA", "P"):
        profile = image.info.get("icc_profile")
        if profile and len(profile) > max_icc and transform_to_srgb(profile, "RGB") is not None:
            yield "a colour profile, made sRGB"


def image_size(source: Source, name: str | None = None) -> ImageSize:
    """Width and height from the header alone, without decoding.

    Raises:
        ImageError: as `decode_rgb`, as far as a header tells.
    """
    with _opened(source, name) as image:
        return ImageSize(*image.size)


def is_plain_jpeg(source: Source, name: str | None = None) -> bool:
    """Whether the file is an upright 8-bit RGB JPEG in sRGB: then its pixels are final and it may be stored as it is.

    Raises:
        ImageError: as `image_size`.
    """
    with _opened(source, name) as image:
        if image.format != "JPEG" or image.mode != "RGB" or _orientation(image) != 1:
            return False
        profile = image.info.get("icc_profile")
        return not profile or transform_to_srgb(profile, "RGB") is None


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


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  damaged metadata raises nearly every type, and must not cost the picture
        return 1


def _upright(image: Image.Image) -> Image.Image:
    method = _UPRIGHT.get(_orientation(image))
    if method is None:
        return image
    turned = image.transpose(method)
    turned.info = image.info
    return turned


def _to_8bit(image: Image.Image) -> Image.Image:
    """Scale grayscale samples of more than 8 bits: the white is 65535 for 16 bits, else the least of 1 (float), 255 and
    65535 that no sample exceeds. (Colour with 16 bits a channel reaches us as 8 bits already.)
    """
    if image.mode not in _NUMERIC:
        return image
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise ImageError("samples that are negative, not finite or over 65535 have no known white; convert to 16-bit")
    whites = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode, (65535,))
    white = next(w for w in whites if values.max() <= w)
    scaled = Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
    scaled.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return scaled


def _to_rgb(image: Image.Image, max_icc: int) -> tuple[Image.Image, bytes]:
    """RGB, or RGBA where there is transparency, and the profile it is in, empty for sRGB."""
    profile: bytes = image.info.get("icc_profile") or b""
    if image.mode in ("1", "P", "PA", "LA", "La", "RGBa", "RGBX", "HSV", "YCbCr") or "transparency" in image.info:
        transparent = "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa")
        image = image.convert("RGBA" if transparent else "RGB")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    image = image.convert("RGB") if alpha is not None else image
    transform = transform_to_srgb(profile, image.mode) if profile or image.mode == "LAB" else None
    icc = profile if transform is not None and image.mode == "RGB" and len(profile) <= max_icc else b""
    if transform is not None and not icc:
        image = apply(transform, image)
    elif image.mode != "RGB":  # Pillow would copy it
        image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image, icc


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


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
