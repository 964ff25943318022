"""Encodes 8-bit images as files of any still image format that holds every image in full size and color.

Formats without ICC profiles get sRGB. The counterpart is `io`, which reads.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from jahp_pl.images.icc import rgb_to_srgb
from jahp_pl.images.io import RGB, ImageError, import_formats

PNG_LEVEL = 1
"""Compression level of PNG. Level 3 takes 1.4 times as long and saves 2 %; for decoded photographs, the usual 6 takes
almost four times as long and saves as little on average, though up to a tenth for single ones."""
LOSSY_FORMATS = ("AVIF", "JPEG", "MPO")
"""Formats that are written with a small loss; all others keep the pixels."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0},
    "PNG": {"compress_level": PNG_LEVEL},
    "WEBP": {"lossless": True, "quality": 0, "method": 0},  # effort 0, which is several times as fast
    **{name: {} for name in ("BMP", "DDS", "DIB", "JPEG2000", "PCX", "PPM", "QOI", "SGI", "TGA", "TIFF")},
}
"""Options of Pillow for each format in which images are written. The other formats reduce colors or sizes."""
_FORMATS_WITH_PROFILE = ("AVIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that Pillow writes with an ICC profile."""


def output_format(suffix: str) -> str:
    """Return Pillow's name of the format with a suffix, in which images are written.

    Raises:
        ImageError: if there is no such format, or it cannot hold every image in full size and color.
    """
    Image.preinit()
    if suffix.lower() not in Image.EXTENSION:
        import_formats()
    name = Image.EXTENSION.get(suffix.lower(), "")
    if name not in _OPTIONS:
        what = f"{name} may not keep colors and size" if name in Image.SAVE else "is not an image format to write"
        raise ImageError(f"'{suffix}': {what}; use .png, .tif, .webp, .jp2, .bmp or .ppm, or with loss .jpg or .avif")
    return name


def encode_rgb(rgb: RGB, suffix: str, icc: bytes = b"") -> bytes:
    """Encode an image to the content of a file that shows the intended colors in every format.

    Formats in `LOSSY_FORMATS` change the pixels a little, others keep them.

    Args:
        rgb: (H, W, 3) uint8.
        suffix: suffix of the format with its dot, e.g. .png.
        icc: ICC profile of `rgb`, empty for sRGB. It is written into the file; for formats without profiles, the
            colors are converted to sRGB.

    Raises:
        ImageError: if no format with this suffix holds every image, or the format cannot hold this one.
    """
    name = output_format(suffix)
    options: dict[str, Any] = {"icc_profile": icc} if icc and name in _FORMATS_WITH_PROFILE else {}
    pixels = rgb_to_srgb(rgb, icc) if icc and not options else rgb
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, name, **options | _OPTIONS[name])
    except (OSError, ValueError) as error:  # e.g. JPEG and WebP limit the side length
        raise ImageError(f"{suffix} cannot hold the image ({str(error).strip()}); use .png") from None
    return buffer.getvalue()
