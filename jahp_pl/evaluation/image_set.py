"""The images that codecs are measured on: found, named, and known again by their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jahp_pl.evaluation import EvaluationError
from jahp_pl.images.io import RGB, SUFFIXES, decode_rgb


class Original(NamedTuple):
    """One image."""

    source: Path
    name: str
    """Its path below the folder of all images, with / on every system."""


class Identity(NamedTuple):
    """What tells one image from another, as rows of results tell it."""

    name: str
    """See `Original`."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    pixels: str
    """See `pixels_hash`."""


def find_images(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by path; a path of one file gives that file.

    Raises:
        EvaluationError: the folder is missing or holds no image.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder of images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise EvaluationError(f"{folder}: holds no image ({', '.join(sorted(SUFFIXES))})")
    return found


def find_originals(folder: Path, limit: int | None = None) -> list[Original]:
    """`find_images` with their names, at most the first `limit` of them.

    Raises:
        EvaluationError: as `find_images`.
    """
    root = folder if folder.is_dir() else folder.parent
    return [Original(path, path.relative_to(root).as_posix()) for path in find_images(folder)[:limit]]


def pixels_hash(rgb: RGB) -> str:
    """First 16 hex digits of the SHA-256 of "WIDTHxHEIGHT" in ASCII and the samples, row by row, R, G, B.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height, width, _ = rgb.shape
    return hashlib.sha256(f"{width}x{height}".encode() + rgb.tobytes()).hexdigest()[:16]


def may_be_one(one: tuple[object, str], other: tuple[object, str]) -> bool:
    """Whether two rows of results may tell of one picture: by its pixels, by its size where a row tells none of them.

    Args:
        one, other: size, None where it is not known, and `pixels_hash`, empty where it is not known.
    """
    (size, pixels), (other_size, other_pixels) = one, other
    if pixels and other_pixels:
        return pixels == other_pixels
    return None in (size, other_size) or size == other_size


def identify(originals: Iterable[Original], max_side: int | None = None) -> list[Identity]:
    """Read every image, so that one that cannot be used is told before hours go into the others.

    Args:
        originals: in any order, which is kept.
        max_side: pixels, of what is going to code them.

    Raises:
        EvaluationError: two of one name; a side beyond `max_side`.
        ImageError: one that cannot be read.
    """
    found: dict[str, Identity] = {}
    for source, name in originals:
        if name in found:
            raise EvaluationError(f"{source}: a second image called {name}; rename one of them")
        rgb = decode_rgb(source)
        height, width, _ = rgb.shape
        if max_side is not None and max(height, width) > max_side:
            raise EvaluationError(f"{source}: {width} x {height} pixels; sides go up to {max_side}, cut it into tiles")
        found[name] = Identity(name, width, height, pixels_hash(rgb))
    return list(found.values())


@contextmanager
def about(name: str) -> Iterator[None]:
    """Let errors of coding say which image they are about.

    Raises:
        EvaluationError: in place of any ValueError of the block.
    """
    try:
        yield
    except ValueError as error:
        raise EvaluationError(f"{name}: {error}") from None
