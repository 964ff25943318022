"""Converts arrays and Pillow images to the pixels that a codec codes, and back. No torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np

from jahp_pl.codec.arrays import Samples
from jahp_pl.codec.bitstream import MAX_ICC_BYTES

if TYPE_CHECKING:
    from PIL import Image

ArrayKind = Literal["numpy", "pil"]
"""numpy: (H, W, 3) uint8 array; pil: Pillow image of mode RGB."""


class ArrayPixels(NamedTuple):
    """The pixels of an image as a codec encodes them, and their color profile."""

    rgb: Samples
    """(H, W, 3) uint8."""
    icc: bytes
    """ICC profile that defines RGB; empty for sRGB."""


def to_array(image: Samples | Image.Image) -> ArrayPixels:
    """Convert an image to pixels; the image is never changed.

    Args:
        image: (H, W, 3) uint8 array, or a Pillow image of any mode.

    Raises:
        ValueError: if the type or shape is wrong, or a Pillow image has transparent pixels.
    """
    icc = b""
    if not isinstance(image, np.ndarray):
        from PIL import Image  # only needed for Pillow images

        from jahp_pl.images.io import convert_image

        if not isinstance(image, Image.Image):
            hint = ""
            if isinstance(image, str | os.PathLike):
                hint = "; open a file with PIL.Image.open"
            elif isinstance(image, bytes):
                hint = "; open the bytes of a file with PIL.Image.open(io.BytesIO(...))"
            raise ValueError(
                f"an image must be uint8 RGB, a tensor, an array or a Pillow image, not {type(image).__name__}{hint}"
            )
        converted = convert_image(image, flatten=False, max_icc=MAX_ICC_BYTES)
        image, icc = converted.rgb, converted.icc
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise not_rgb_error(image.dtype, image.dtype == np.uint8, image.shape)
    return ArrayPixels(image, icc)


def not_rgb_error(dtype: object, is_uint8: bool, shape: tuple[int, ...]) -> ValueError:
    """Create the error for a tensor or an array that is not an RGB image."""
    if not is_uint8:
        remedy = "scale it to 0 to 255 and round it to uint8"
    elif len(shape) == 4:
        remedy = "give one image; compress_all takes several"
    elif len(shape) == 3 and 3 in (shape[0], shape[2]) and 0 not in shape:
        remedy = "permute its axes"
    else:
        remedy = "convert it to RGB"
    return ValueError(
        "an image must be uint8 RGB, a tensor (3, H, W) or an array (H, W, 3), or a Pillow image, not "
        f"{dtype} of shape {shape}; {remedy}"
    )


@overload
def from_array(samples: Samples, icc: bytes, kind: Literal["numpy"]) -> Samples: ...
@overload
def from_array(samples: Samples, icc: bytes, kind: ArrayKind) -> Samples | Image.Image: ...
def from_array(samples: Samples, icc: bytes, kind: ArrayKind) -> Samples | Image.Image:
    """Convert pixels to an image of the requested kind.

    Args:
        samples: (3, H, W) uint8.
        icc: ICC profile of the samples, which only a Pillow image can carry; empty for sRGB.
        kind: kind of image to return.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in ("numpy", "pil"):
        raise ValueError(f"as_={kind!r}: must be 'tensor', 'numpy' or 'pil'")
    array = np.ascontiguousarray(samples.transpose(1, 2, 0))
    if kind == "numpy":
        return array
    from PIL import Image

    image = Image.fromarray(array)
    if icc:
        image.info["icc_profile"] = icc
    return image
