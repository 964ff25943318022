"""Converts colors from ICC profiles to sRGB. Pillow and numpy only.

Profiles are untrusted. A damaged one, or one for another kind of image, is ignored, and the image is taken as sRGB,
like images without a profile.
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
    """Build the transform from a profile to sRGB; an image in LAB is converted without a profile.

    Args:
        profile: content of an ICC profile; None for LAB.
        mode: Pillow's mode of the image.

    Returns:
        The transform; None if the profile is damaged, for another kind of image than `mode`, or equal to sRGB (within
        one level).
    """
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile or b"")) if mode != "LAB" else ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,  # a cache is not thread-safe
        )
    except _FAILURES:
        return None
    if mode != "RGB":
        return transform
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    result = np.asarray(apply_transform(transform, Image.fromarray(cube)))
    return None if np.abs(result.astype(int) - cube.astype(int)).max() <= 1 else transform


def is_usable_profile(profile: bytes, mode: str) -> bool:
    """Check whether littleCMS can use a profile for images of this mode."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    except _FAILURES:
        return False
    return True


def apply_transform(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    """Apply a transform to an image of the mode that it was built for, and return a new image in RGB."""
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # None is returned only for conversion in place
    return result


def rgb_to_srgb(rgb: npt.NDArray[np.uint8], profile: bytes) -> npt.NDArray[np.uint8]:
    """Convert (H, W, 3) uint8 from the space of `profile` to sRGB."""
    transform = transform_to_srgb(profile, "RGB")
    return rgb if transform is None else np.array(apply_transform(transform, Image.fromarray(rgb)))


def profile_name(profile: bytes) -> str:
    """Return the name of a profile, e.g. Display P3, printable and with at most 60 characters."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except _FAILURES:
        return "unreadable"
    return "".join(c for c in " ".join(name.split()) if c.isprintable())[:_MAX_NAME] or "unnamed"
