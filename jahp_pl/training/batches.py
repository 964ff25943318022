"""Extracts the images from batches of any loader: uint8 or floats in [0, 1], alone or with labels.

| a batch is | images |
|---|---|
| tensor (B, 3, H, W) of uint8 | divided by 255 |
| tensor (B, 3, H, W) of a floating type | RGB in [0, 1], unchanged; float64 in PyTorch's default type |
| tuple or list (image, label, ...) | the first element |
| mapping with "image", "images" or "pixel_values" | that entry |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jahp_pl.data.pipeline import ValImage
from jahp_pl.training import TrainingError

_KEYS = ("image", "images", "pixel_values")


def images_of(batch: Any) -> Tensor:
    """Return the images of a batch, a float tensor (B, 3, H, W); `check_range` tests whether it lies in [0, 1].

    Raises:
        TrainingError: if the batch has none of the forms in the table at the top of this module.
    """
    found = batch
    if isinstance(found, Mapping):
        found = next((found[key] for key in _KEYS if key in found), None)
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor) or found.dim() != 4 or found.shape[1] != 3:
        what = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise TrainingError(
            f"a batch must be images (B, 3, H, W), uint8 or floats in [0, 1], alone, first in a tuple, or named "
            f"'image'; this one is {what}. Convert images to RGB tensors of equal size in the dataset"
        )
    if found.dtype == torch.uint8:
        return found.float().div_(255)
    if found.dtype == torch.float64:  # as numpy makes it; Lightning sets this default type for precision="64-true"
        return found.to(torch.get_default_dtype())
    return found if found.is_floating_point() else found.float()


def named_images(batch: Any, number: int) -> list[ValImage]:
    """Split a batch into named images, (1, 3, H, W) each.

    Args:
        batch: validation batch: a `ValImage`, or any form that `images_of` accepts.
        number: index of the batch; unnamed images are named after it, e.g. image-0007 or image-0007-2.
    """
    if isinstance(batch, ValImage):
        return [batch]
    images = images_of(batch)
    if len(images) == 1:
        return [ValImage(f"image-{number:04}", images)]
    return [ValImage(f"image-{number:04}-{index}", image[None]) for index, image in enumerate(images)]


def check_range(images: Tensor) -> None:
    """Refuse images (B, 3, H, W) outside [0, 1], for example images normalized by mean and standard deviation.

    Raises:
        TrainingError: if a value lies outside by more than 0.01.
    """
    least, most = (float(value) for value in torch.aminmax(images.detach().nan_to_num(0.5, 0.5, 0.5)))
    if least < -0.01 or most > 1.01:
        raise TrainingError(
            f"images must be RGB in [0, 1]; these range from {least:.3g} to {most:.3g}. Remove Normalize, and divide "
            "values from 0 to 255 by 255"
        )


class RangeCheck:
    """Checks the range of the first images of a stage only, because `check_range` waits for the device."""

    def __init__(self) -> None:
        self._is_done = False

    def restart(self) -> None:
        """Check the next images; call it when training gives way to validation, and back."""
        self._is_done = False

    def check(self, images: Tensor) -> None:
        """Check the images (B, 3, H, W) if they are the first of their stage."""
        if not self._is_done:
            check_range(images)
            self._is_done = True
