"""What callers hold images in: tensors, arrays and Pillow images, and the pixels that a codec sees of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jahp_pl.codec.array_images import array_from, image_from

if TYPE_CHECKING:
    from PIL import Image

    Picture = Tensor | npt.NDArray[np.uint8] | Image.Image

Kind = Literal["tensor", "numpy", "pil"]
"""(3, H, W) uint8 tensor; (H, W, 3) uint8 array; Pillow image of mode RGB."""


class Pixels(NamedTuple):
    """An image as a codec codes it."""

    rgb: Tensor
    """(3, H, W) uint8 on the CPU."""
    icc: bytes
    """ICC profile that says what RGB means; empty for sRGB."""


def to_pixels(image: Picture) -> Pixels:
    """The pixels of an image.

    Args:
        image: of one of the kinds above, a tensor on any device, a Pillow image of any mode; never changed.

    Raises:
        ValueError: another type or shape, or a Pillow image with transparent pixels.
    """
    if not isinstance(image, Tensor):
        rgb, icc = array_from(image)
        return Pixels(torch.from_numpy(np.array(rgb, order="C")).movedim(-1, 0), icc)
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(
            "an image must be uint8 RGB, a tensor (3, H, W) or an array (H, W, 3), or a Pillow image, not "
            f"{image.dtype} of shape {tuple(image.shape)}"
        )
    return Pixels(image.cpu(), b"")


def from_pixels(rgb: Tensor, icc: bytes, kind: Kind) -> Tensor | npt.NDArray[np.uint8] | Image.Image:
    """An image of the kind that is wanted.

    Args:
        rgb: (3, H, W) uint8 on the CPU.
        icc: its ICC profile, which only a Pillow image takes along; empty for sRGB.
        kind: what to make.

    Raises:
        ValueError: another kind.
    """
    if kind == "tensor":
        return rgb
    return image_from(rgb.numpy(), icc, kind)
