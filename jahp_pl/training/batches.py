"""What loaders give, as images: bytes or numbers in [0, 1], alone or beside labels.

| a batch is | images |
|---|---|
| tensor (B, 3, H, W) of uint8 | divided by 255 |
| tensor (B, 3, H, W) of a floating type | as they are: RGB in [0, 1] |
| tuple, list (image, label, ...) | the first |
| mapping with "image", "images" or "pixel_values" | that |
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
    """The images of a batch, see the module's table: (B, 3, H, W), float.

    Raises:
        TrainingError: there are none.
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
            f"'image'; this one is {what}. Convert pictures to tensors of RGB in the dataset, of one size in a batch"
        )
    if found.dtype == torch.uint8:
        return found.float().div_(255)
    return found if found.is_floating_point() else found.float()


def named_images(batch: Any, number: int) -> list[ValImage]:
    """The images of a batch one by one, (1, 3, H, W) each; without names of their own they are numbered.

    Args:
        batch: of a validation.
        number: of the batch.
    """
    if isinstance(batch, ValImage):
        return [batch]
    images = images_of(batch)
    if len(images) == 1:
        return [ValImage(f"image-{number:04}", images)]
    return [ValImage(f"image-{number:04}-{place}", image[None]) for place, image in enumerate(images)]


def check_range(images: Tensor) -> None:
    """Refuse images that are not in [0, 1], as those normalised by mean and deviation are not.

    Raises:
        TrainingError: more than a rounding error outside.
    """
    least, most = (float(value) for value in torch.aminmax(images.detach().nan_to_num(0.5, 0.5, 0.5)))
    if least < -0.01 or most > 1.01:
        raise TrainingError(
            f"images must be RGB in [0, 1]; these go from {least:.3g} to {most:.3g}. Leave out Normalize, and divide "
            "by 255 what is no uint8"
        )
