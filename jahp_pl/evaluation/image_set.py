"""Finds the images on which codecs are measured, and identifies them by name and pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jahp_pl.errors import describe_error
from jahp_pl.evaluation import EvaluationError
from jahp_pl.files.atomic import resolved
from jahp_pl.files.search import find_files
from jahp_pl.images.io import RGB, SUFFIXES, decode_rgb


class Original(NamedTuple):
    """One image and its name."""

    source: Path
    name: str
    """Path relative to the searched folder, with / on every system; for an image given by itself, its file name."""


class ImageIdentity(NamedTuple):
    """Properties that identify an image; rows of results have them too."""

    name: str
    """See `Original`."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    pixels: str
    """See `pixels_hash`."""


def find_images(paths: Path | Sequence[Path]) -> list[Path]:
    """Find images as `find_originals` does, and return their paths only."""
    return [original.source for original in find_originals(paths)]


def find_originals(paths: Path | Sequence[Path], limit: int | None = None) -> list[Original]:
    """Find image files and name them; an image that is found twice counts once.

    Args:
        paths: folders, searched recursively, whose images are sorted by path; or image files.
        limit: maximum number of images; the first ones are taken. None for all.

    Raises:
        EvaluationError: if a path is missing or is a device or a pipe, or a folder has no image or cannot be listed.
    """
    found: dict[Path, Original] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        root = path if path.is_dir() else path.parent
        for source in _images_of(path):
            found.setdefault(resolved(source), Original(source, source.relative_to(root).as_posix()))
    return list(found.values())[:limit]


def _images_of(path: Path) -> list[Path]:
    """List the images at one path, sorted."""
    if path.is_file():
        return [path]
    if path.exists() and not path.is_dir():
        raise EvaluationError(f"{path}: is not a regular file; give an image or a folder of images")
    if not path.is_dir():
        raise EvaluationError(f"{path}: no such image or folder of images; check the path")
    found = find_files(path, SUFFIXES)
    if found.unread:
        raise EvaluationError(describe_error(found.unread[0]))
    if not found.files:
        raise EvaluationError(f"{path}: has no image ({', '.join(sorted(SUFFIXES))}); give another folder")
    return found.files


def pixels_hash(rgb: RGB) -> str:
    """Hash an image: the first 16 hex digits of the SHA-256 of "WIDTHxHEIGHT" in ASCII, then the RGB samples by rows.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height, width, _ = rgb.shape
    return hashlib.sha256(f"{width}x{height}".encode() + rgb.tobytes()).hexdigest()[:16]


def may_be_same_image(one: tuple[object, str], other: tuple[object, str]) -> bool:
    """Check whether two rows of results may belong to the same image: by hash, or by size if a row has no hash.

    Args:
        one, other: the size of each image (None if unknown) and its `pixels_hash` (empty if unknown).
    """
    (size, pixels), (other_size, other_pixels) = one, other
    if pixels and other_pixels:
        return pixels == other_pixels
    return None in (size, other_size) or size == other_size


def identify(originals: Iterable[Original], max_side: int | None = None) -> list[ImageIdentity]:
    """Read and identify every image, so that an unusable one is reported before hours are spent on the others.

    Args:
        originals: images, whose order is kept.
        max_side: longest side in pixels that the codec supports.

    Raises:
        EvaluationError: if two images have the same name, or a side exceeds `max_side`.
        ImageError: if an image cannot be read.
    """
    found: dict[str, ImageIdentity] = {}
    for source, name in originals:
        if name in found:
            raise EvaluationError(f"{source}: another image is also called {name}; rename one of them")
        rgb = decode_rgb(source)
        height, width, _ = rgb.shape
        if max_side is not None and max(height, width) > max_side:
            raise EvaluationError(
                f"{source}: has {width} x {height} pixels, but sides go up to {max_side}; cut it into tiles"
            )
        found[name] = ImageIdentity(name, width, height, pixels_hash(rgb))
    return list(found.values())


@contextmanager
def add_name_to_errors(name: str) -> Iterator[None]:
    """Add the name of an image to errors in the block.

    Raises:
        EvaluationError: if the block raises any ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise EvaluationError(f"{name}: {error}") from None
