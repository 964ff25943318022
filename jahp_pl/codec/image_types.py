"""Converts tensors, arrays and Pillow images to the pixels that a codec codes, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jahp_pl.codec.array_images import from_array, not_rgb_error, to_array
from jahp_pl.codec.arrays import Samples

if TYPE_CHECKING:
    from PIL import Image

    ImageLike = Tensor | Samples | Image.Image

ImageKind = Literal["tensor", "numpy", "pil"]
"""tensor: (3, H, W) uint8; numpy: (H, W, 3) uint8 array; pil: Pillow image of mode RGB."""


class Pixels(NamedTuple):
    """The pixels of an image as a codec encodes them, and their color profile."""

    rgb: Tensor
    """(3, H, W) uint8 on the CPU."""
    icc: bytes
    """ICC profile that defines RGB; empty for sRGB."""


def to_pixels(image: ImageLike) -> Pixels:
    """Convert an image to pixels; the image is never changed.

    Args:
        image: a tensor on any device, an array, or a Pillow image of any mode.

    Raises:
        ValueError: if the type or shape is wrong, or a Pillow image has transparent pixels.
    """
    if not isinstance(image, Tensor):
        rgb, icc = to_array(image)
        return Pixels(torch.from_numpy(np.array(rgb, order="C")).movedim(-1, 0), icc)
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise not_rgb_error(image.dtype, image.dtype == torch.uint8, tuple(image.shape))
    if image.is_meta or image.layout != torch.strided:
        raise ValueError("an image must have its pixels in memory, not be a meta or sparse tensor; convert it first")
    return Pixels(image.cpu(), b"")


def from_pixels(rgb: Tensor, icc: bytes, kind: ImageKind) -> Tensor | Samples | Image.Image:
    """Convert pixels to an image of the requested kind.

    Args:
        rgb: (3, H, W) uint8 on the CPU.
        icc: ICC profile of `rgb`, which only a Pillow image can carry; empty for sRGB.
        kind: kind of image to return.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind == "tensor":
        return rgb
    return from_array(rgb.numpy(), icc, kind)
