"""Images that callers hold in arrays and in Pillow, and the pixels that a codec sees of them. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.bitstream import MAX_ICC_BYTES

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["numpy", "pil"]
"""(H, W, 3) uint8 array; Pillow image of mode RGB."""
Samples = npt.NDArray[np.uint8]


class ArrayPixels(NamedTuple):
    """An image as a codec codes it."""

    rgb: Samples
    """(H, W, 3)."""
    icc: bytes
    """ICC profile that says what RGB means; empty for sRGB."""


def array_from(image: Samples | Image.Image) -> ArrayPixels:
    """The pixels of an image, which is never changed.

    Raises:
        ValueError: another type or shape, or a Pillow image with transparent pixels.
    """
    icc = b""
    if not isinstance(image, np.ndarray):
        from PIL import Image  # costs those nothing who hold no Pillow images

        from jahp_pl.images.io import convert_image

        if not isinstance(image, Image.Image):
            raise ValueError(
                f"an image must be uint8 RGB, a tensor, an array or a Pillow image, not {type(image).__name__}"
            )
        converted = convert_image(image, flatten=False, max_icc=MAX_ICC_BYTES)
        image, icc = converted.rgb, converted.icc
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            "an image must be uint8 RGB, a tensor (3, H, W) or an array (H, W, 3), or a Pillow image, not "
            f"{image.dtype} of shape {image.shape}"
        )
    return ArrayPixels(image, icc)


@overload
def image_from(samples: Samples, icc: bytes, kind: Literal["numpy"]) -> Samples: ...
@overload
def image_from(samples: Samples, icc: bytes, kind: Kind) -> Samples | Image.Image: ...
def image_from(samples: Samples, icc: bytes, kind: Kind) -> Samples | Image.Image:
    """An image of the kind that is wanted.

    Args:
        samples: (3, H, W).
        icc: its ICC profile, which only a Pillow image takes along; empty for sRGB.
        kind: what to make.

    Raises:
        ValueError: another kind.
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
