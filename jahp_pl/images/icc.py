"""ICC colour profiles: what an image's numbers mean, and how they become sRGB. Pillow and numpy only.

A profile may come from anywhere. A damaged one, or one of another kind than the image, is taken for none: the numbers
then are sRGB, as where there is no profile.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

_FAILURES = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
_MAX_NAME = 60


@lru_cache(maxsize=64)
def transform_to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; LAB has but one meaning, and no other way to RGB.

    Args:
        profile: content of an ICC profile; None for LAB.
        mode: Pillow's name of the image's kind.

    Returns:
        None where the profile is damaged, of another kind than `mode`, or sRGB already (within one level).
    """
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile or b"")) if mode != "LAB" else ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,  # with a cache, threads could not share it
        )
    except _FAILURES:
        return None
    if mode != "RGB":
        return transform
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    result = np.asarray(apply(transform, Image.fromarray(cube)))
    return None if np.abs(result.astype(int) - cube.astype(int)).max() <= 1 else transform


def is_usable(profile: bytes, mode: str) -> bool:
    """Whether littleCMS can read a profile and it is for images of this mode."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    except _FAILURES:
        return False
    return True


def apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    """The image in the space that the transform leads to."""
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # None means in place, which was not asked for
    return result


def rgb_to_srgb(rgb: npt.NDArray[np.uint8], profile: bytes) -> npt.NDArray[np.uint8]:
    """Numbers that mean what `profile` says -> sRGB; both (H, W, 3) uint8."""
    transform = transform_to_srgb(profile, "RGB")
    return rgb if transform is None else np.array(apply(transform, Image.fromarray(rgb)))


def profile_name(profile: bytes) -> str:
    """What a profile calls itself, e.g. Display P3: printable, at most 60 characters."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except _FAILURES:
        return "unreadable"
    return "".join(c for c in " ".join(name.split()) if c.isprintable())[:_MAX_NAME] or "unnamed"
