"""Converts images as Pillow reads them to 8-bit RGB: rotation, bit depth, colors, transparency."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from jahp_pl.images.colors import ColorSpace
from jahp_pl.images.icc import apply_transform, is_usable_profile, transform_to_srgb
from jahp_pl.images.layouts import LayoutError, SampleFormat, transparent_gray

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


def describe_losses(image: Image.Image, colors: ColorSpace, samples: SampleFormat, max_icc: int) -> Iterator[str]:
    """Yield what the conversion of an image to 8-bit RGB loses, in a few words each.

    Args:
        image: open but not loaded, so that its header is still available.
        colors: color space of the image.
        samples: sample format of the image.
        max_icc: see `io.convert_rgb`.
    """
    layout = str([tile[3] for tile in getattr(image, "tile", [])])  # e.g. "RGB;16B", which Pillow reads as 8-bit RGB
    if samples.is_deep or image.mode in _NUMERIC or ";16" in layout:
        yield "bits beyond 8 per sample"
    if image.mode == "CMYK":
        yield "CMYK, converted to sRGB"
    if colors.ignored:
        yield f"{colors.ignored}, ignored"
    if not colors.icc:
        return
    kind = profile_mode(image.mode)
    if not is_usable_profile(colors.icc, kind):
        yield f"{colors.origin} that is damaged or not for {kind}, ignored"
        return
    is_kept = kind == "RGB" and len(colors.icc) <= max_icc
    if kind != "CMYK" and not is_kept and transform_to_srgb(colors.icc, kind) is not None:
        yield f"{colors.origin}, converted to sRGB"


def profile_mode(mode: str) -> str:
    """Return the mode that an ICC profile must support to be used for images of `mode`: RGB, L, CMYK or LAB."""
    if mode in ("LA", "La", "L", *_NUMERIC):
        return "L"
    return mode if mode in ("CMYK", "LAB") else "RGB"


def orientation(image: Image.Image) -> int:
    """Return the Exif orientation; 1 (upright) if it is not readable."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  damaged metadata raises nearly every type, and must not make the image unreadable
        return 1


def upright(image: Image.Image) -> Image.Image:
    """Rotate or mirror an image according to its metadata."""
    method = _UPRIGHT.get(orientation(image))
    if method is None:
        return image
    turned = image.transpose(method)
    turned.info = image.info
    return turned


def to_8bit(image: Image.Image, samples: SampleFormat) -> Image.Image:
    """Scale grayscale samples of more than 8 bits to 8.

    The header may state which value is white. If it does not, white is 65535 for 16-bit samples; for all others, it is
    the smallest of 1 (float only), 255 and 65535 that no sample exceeds. If all samples then are below an eighth of it,
    a few of them may as well exceed the smaller white, so it is unknown. (Pillow itself converts color images of 16
    bits per channel to 8 bits.)

    Args:
        image: loaded image of any mode.
        samples: sample format of the file.

    Raises:
        LayoutError: if samples are negative, not finite or over 65535, or white is unknown.
    """
    if image.mode not in _NUMERIC:
        return image
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise LayoutError("samples are negative, not finite or over 65535, with no known white; convert it to 16 bits")
    whites = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode, (65535,))
    white = samples.white or next(w for w in whites if values.max() <= w)
    if samples.white is None and white != whites[0] and 8 * values.max() < white:
        raise LayoutError(f"the largest sample is {values.max():g}, so white is not known; scale it to 16 bits")
    levels = np.rint(values * (255 / white)).astype(np.uint8)
    scaled = Image.fromarray(255 - levels if samples.is_inverted else levels)
    if alpha := transparent_gray(image):
        scaled.putalpha(alpha)
    scaled.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return scaled


def to_rgb(image: Image.Image, profile: bytes, max_icc: int) -> tuple[Image.Image, bytes]:
    """Convert to RGB, or to RGBA if there is transparency.

    Args:
        image: 8-bit image of any mode.
        profile: ICC profile of the image; empty for sRGB.
        max_icc: an RGB image with a profile of at most this many bytes keeps its colors.

    Returns:
        The image, and the ICC profile of its colors; empty for sRGB.
    """
    alpha = None
    if image.mode == "La":  # which Pillow converts to nothing else
        image = image.convert("LA")
    if image.mode == "LA" or (image.mode == "L" and "transparency" in image.info):
        image = image.convert("LA")  # a gray profile applies to gray samples
        image, alpha = image.getchannel("L"), image.getchannel("A")
    elif image.mode in ("1", "P", "PA", "RGBa", "RGBX", "HSV", "YCbCr") or "transparency" in image.info:
        transparent = "transparency" in image.info or image.mode in ("PA", "RGBa")
        image = image.convert("RGBA" if transparent else "RGB")
    if image.mode == "RGBA":
        image, alpha = image.convert("RGB"), image.getchannel("A")
    transform = transform_to_srgb(profile, image.mode) if profile or image.mode == "LAB" else None
    icc = profile if transform is not None and image.mode == "RGB" and len(profile) <= max_icc else b""
    if transform is not None and not icc:
        image = apply_transform(transform, image)
    elif image.mode != "RGB":  # convert would copy the image
        image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image, icc


def on_white(image: Image.Image) -> Image.Image:
    """Composite an RGBA image on white."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
