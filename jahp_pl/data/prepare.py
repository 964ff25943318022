"""Prepares one photograph for a shard: checked, upright 8-bit sRGB, scaled or tiled if requested, encoded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jahp_pl.data.index import Skipped
from jahp_pl.data.sources import FoundPhoto
from jahp_pl.images.io import RGB, ImageError, decode_rgb, image_size, is_plain_jpeg

_WEBP_MAX_SIDE, _JPEG_MAX_SIDE = 16383, 65500


class ShardOptions(NamedTuple):
    """How photographs are prepared and packed."""

    min_side: int = 256
    """Photographs with a shorter side, in pixels, are skipped, because no training crop fits into them."""
    max_pixels: int = 2**26
    """Photographs with more pixels are skipped without decoding; a process needs about 13 bytes per pixel."""
    max_side: int | None = None
    """Photographs with a longer side, in pixels, are scaled down to it, which also removes artifacts of earlier
    compression; None keeps every size."""
    tile: int | None = None
    """Photographs with more than twice this side squared, in pixels, are cut into tiles of at most this side, which
    limits what training decodes for a few crops; None keeps them whole. Tiles overlap by `min_side` - 1, so that each
    crop of `min_side` pixels is in exactly one of them."""
    quality: int | None = None
    """JPEG quality (4:4:4) for photographs that cannot be stored unchanged; None stores them as lossless WebP, which
    takes four fifths of a PNG's bytes and two thirds of its decoding time. Photographs with a side too long for WebP
    (16383 pixels) or JPEG (65500) become PNG."""
    shard_samples: int = 500
    """Maximum number of photographs per shard."""
    shard_bytes: int = 256 * 2**20
    """Maximum bytes of photographs per shard, unless a single one is larger."""
    seed: int = 0
    """Seed of the order in which photographs are packed."""
    shuffle: bool = True
    """False packs them in the order of their names, for validation sets."""
    part: int = 1
    """Number of the part to pack, from 1 to `num_parts`."""
    num_parts: int = 1
    """Number of parts, so that several machines can share the work; successive names go to successive parts."""


class StoredImage(NamedTuple):
    """One image file of a shard."""

    name: str
    """Name of the photograph, with the position of a tile."""
    suffix: str
    """Suffix without its dot."""
    data: bytes
    """Content of the file."""
    num_pixels: int


class PreparedPhoto(NamedTuple):
    """One photograph, ready to be stored in a shard."""

    name: str
    digest: bytes
    """16 bytes; equal for photographs with equal pixels."""
    stored: tuple[StoredImage, ...]
    """The whole photograph, or its tiles."""
    as_is: bool
    """Whether the original bytes are stored unchanged."""


def prepare(photo: FoundPhoto, options: ShardOptions) -> PreparedPhoto | Skipped:
    """Decode, check and encode one photograph.

    Returns:
        The files to store, or the reason why the photograph is left out; a bad photograph raises no error.
    """
    try:
        return _prepare(photo, options)
    except ImageError as error:
        return Skipped(photo.name, "broken", str(error).removeprefix(f"{photo.name}: "))
    except OSError as error:
        return Skipped(photo.name, "broken", error.strerror or str(error))
    except MemoryError:
        return Skipped(photo.name, "broken", "not enough memory")


def _prepare(photo: FoundPhoto, options: ShardOptions) -> PreparedPhoto | Skipped:
    """Decode, check and encode one photograph.

    Raises:
        ImageError, OSError, MemoryError: if it cannot be read or encoded.
    """
    data = photo.read()
    width, height = image_size(data, photo.name)
    if min(width, height) < options.min_side:
        return _too_small(photo.name, width, height, options)
    if width * height > options.max_pixels:
        detail = f"{width}x{height}, over {options.max_pixels} pixels; --max-pixels raises the limit"
        return Skipped(photo.name, "large", detail)
    rgb = decode_rgb(data, photo.name)
    resized = options.max_side is not None and max(rgb.shape[:2]) > options.max_side
    if resized and options.max_side is not None:
        rgb = _scaled_down(rgb, options.max_side)
        if min(rgb.shape[:2]) < options.min_side:
            return _too_small(photo.name, rgb.shape[1], rgb.shape[0], options)
    is_cut = options.tile is not None and rgb.shape[0] * rgb.shape[1] > 2 * options.tile**2
    as_is = not resized and not is_cut and is_plain_jpeg(data)
    digest = hashlib.blake2b(repr(rgb.shape).encode() + rgb.tobytes(), digest_size=16).digest()
    stored: tuple[StoredImage, ...]
    if as_is:
        stored = (StoredImage(photo.name, "jpg", data, rgb.shape[0] * rgb.shape[1]),)
    elif is_cut:
        stored = tuple(_encoded(name, tile, options) for name, tile in _tiles(photo.name, rgb, options))
    else:
        stored = (_encoded(photo.name, rgb, options),)
    return PreparedPhoto(photo.name, digest, stored, as_is)


def tile_spans(length: int, tile: int, crop: int) -> list[tuple[int, int]]:
    """Compute where the tiles of a photograph begin and end along one of its sides.

    Each of the length - crop + 1 positions of a crop is in exactly one tile, and the numbers of positions per tile
    differ by at most one.

    Args:
        length: length of the side in pixels, at least `crop`.
        tile: maximum length of a tile in pixels, more than `crop`.
        crop: side of the crops in pixels.
    """
    num_positions = length - crop + 1
    count = -(-num_positions // (tile - crop + 1))
    return [(num_positions * i // count, num_positions * (i + 1) // count + crop - 1) for i in range(count)]


def _tiles(name: str, rgb: RGB, options: ShardOptions) -> Iterator[tuple[str, RGB]]:
    """Yield the tiles of a photograph with their names."""
    assert options.tile is not None
    rows, columns = (tile_spans(side, options.tile, options.min_side) for side in rgb.shape[:2])
    path = Path(name)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            tile_name = str(path.with_name(f"{path.stem[:50]}-{i}-{j}{path.suffix}"))
            yield tile_name, np.ascontiguousarray(rgb[top:bottom, left:right])


def _encoded(name: str, rgb: RGB, options: ShardOptions) -> StoredImage:
    suffix, data = _encode(rgb, options.quality)
    return StoredImage(name, suffix, data, rgb.shape[0] * rgb.shape[1])


def _too_small(name: str, width: int, height: int, options: ShardOptions) -> Skipped:
    return Skipped(name, "small", f"{width}x{height}, under {options.min_side} pixels")


def _scaled_down(rgb: RGB, max_side: int) -> RGB:
    height, width = (max(1, round(side * max_side / max(rgb.shape[:2]))) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def _encode(rgb: RGB, quality: int | None) -> tuple[str, bytes]:
    """Encode an image for a shard; return the suffix and the file."""
    buffer, image = io.BytesIO(), Image.fromarray(rgb)
    if quality is not None and max(image.size) <= _JPEG_MAX_SIDE:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
        return "jpg", buffer.getvalue()
    if quality is not None or max(image.size) > _WEBP_MAX_SIDE:
        image.save(buffer, "PNG")
        return "png", buffer.getvalue()
    image.save(buffer, "WEBP", lossless=True, quality=0, method=0)  # effort 0: 7 times as fast, 10 % larger
    return "webp", buffer.getvalue()
