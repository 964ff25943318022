"""Photographs -> webdataset shards: plain tar files of images that one reads from front to back, and an `index.json`.

Guarantees: the same photographs, options and libraries give the same bytes, whatever the number of processes. Pixels
are upright 8-bit sRGB; a photograph that is stored as JPEG was given as that JPEG, all others are stored losslessly
(unless `quality` asks otherwise). The output folder appears complete or not at all.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import random
import re
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jahp_pl.data.images import RGB, ImageError, decode_rgb, image_size, is_plain_jpeg
from jahp_pl.data.index import INDEX_NAME, DataError, ShardIndex, Skipped, count_by_reason
from jahp_pl.data.packing import ShardPacker, appears_at_once
from jahp_pl.data.sources import Item, find_items

_WEBP_MAX_SIDE = 16383


class ShardOptions(NamedTuple):
    """How photographs are prepared and packed."""

    min_side: int = 256
    """Photographs with a shorter side, in pixels, are skipped: no training crop fits into them."""
    max_side: int | None = None
    """Photographs with a longer side are scaled down to it, in pixels, which also removes the traces of an earlier
    compression; None keeps every size."""
    quality: int | None = None
    """JPEG quality (4:4:4) for photographs that cannot be stored as they are; None stores them losslessly as WebP,
    which takes four fifths of a PNG's bytes and two thirds of its decoding time (above 16383 pixels a side: PNG)."""
    shard_samples: int = 500
    """Most photographs in a shard."""
    shard_bytes: int = 256 * 2**20
    """Most bytes of photographs in a shard, unless a single one is larger."""
    seed: int = 0
    """Seed of the order in which photographs are packed."""
    shuffle: bool = True
    """False packs them in the order of their names, for validation sets."""


class ShardReport(NamedTuple):
    """What `write_shards` made."""

    out: Path
    """The folder."""
    num_shards: int
    """Tar files in it."""
    num_samples: int
    """Photographs in them."""
    num_as_is: int
    """Photographs stored byte for byte as given."""
    num_bytes: int
    """Size of all shards."""
    num_pixels: int
    """Height times width, over all photographs."""
    skipped: tuple[Skipped, ...]
    """Files that were left out, each with its reason; also in `index.json`."""


def write_shards(
    sources: Sequence[str | Path],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ShardReport:
    """Pack the photographs of folders, files and tar archives into shards.

    Memory holds a few photographs per process, and the names of all.

    Args:
        sources: folders (searched through), image files, uncompressed tar archives.
        out: folder to be made.
        options: sizes, storage and order; the defaults if None.
        workers: processes that decode; all cores by default, 1 stays in this process.
        overwrite: replace `out` if it is a folder of shards.
        progress: called with (photographs done, photographs found).
    Raises:
        DataError: an option out of range; no usable photograph; `out` exists; the disk is full. Nothing is left behind.
    """
    options, out = options or ShardOptions(), Path(out).absolute()
    _check(options, out, overwrite)
    found = find_items(sources)
    items, skipped = found.items, found.skipped
    if options.shuffle:
        random.Random(options.seed).shuffle(items)
    seen: set[bytes] = set()
    num_as_is = num_pixels = 0
    with appears_at_once(out) as folder, ShardPacker(folder, options.shard_samples, options.shard_bytes) as packer:
        for done, photo in enumerate(_prepare_all(items, options, workers or _num_cores()), start=1):
            if isinstance(photo, Skipped):
                skipped.append(photo)
            elif photo.digest in seen:
                skipped.append(Skipped(photo.name, "duplicate", "the same pixels as an earlier photograph"))
            else:
                seen.add(photo.digest)
                packer.add(photo.name, photo.suffix, photo.data)
                num_as_is, num_pixels = num_as_is + photo.as_is, num_pixels + photo.num_pixels
            if progress is not None:
                progress(done, len(items))
        packer.close()
        if not packer.entries:
            raise DataError(f"no usable photograph among {len(items) or 'the archives'}: {_explain(skipped, options)}")
        ShardIndex(tuple(packer.entries), tuple(skipped), num_pixels).dump(folder)
    num_bytes = sum(entry.bytes for entry in packer.entries)
    return ShardReport(out, len(packer.entries), len(seen), num_as_is, num_bytes, num_pixels, tuple(skipped))


class _Prepared(NamedTuple):
    name: str
    suffix: str
    data: bytes
    digest: bytes
    num_pixels: int
    as_is: bool


def _prepare(item: Item, options: ShardOptions) -> _Prepared | Skipped:
    """Decode, check and encode one photograph."""
    try:
        data = item.read()
        if min(image_size(data, item.name)) < options.min_side:
            return _too_small(item.name, *image_size(data), options)
        rgb = decode_rgb(data, item.name)
        resized = options.max_side is not None and max(rgb.shape[:2]) > options.max_side
        if resized and options.max_side is not None:
            rgb = _scaled_down(rgb, options.max_side)
            if min(rgb.shape[:2]) < options.min_side:
                return _too_small(item.name, rgb.shape[1], rgb.shape[0], options)
        as_is = not resized and is_plain_jpeg(data)
    except ImageError as error:
        return Skipped(item.name, "broken", str(error).removeprefix(f"{item.name}: "))
    except OSError as error:
        return Skipped(item.name, "broken", error.strerror or str(error))
    suffix, data = ("jpg", data) if as_is else _encode(rgb, options.quality)
    digest = hashlib.blake2b(repr(rgb.shape).encode() + rgb.tobytes(), digest_size=16).digest()
    return _Prepared(item.name, suffix, data, digest, rgb.shape[0] * rgb.shape[1], as_is)


def _too_small(name: str, width: int, height: int, options: ShardOptions) -> Skipped:
    return Skipped(name, "small", f"{width}x{height}, under {options.min_side} pixels")


def _scaled_down(rgb: RGB, max_side: int) -> RGB:
    height, width = (max(1, round(side * max_side / max(rgb.shape[:2]))) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def _encode(rgb: RGB, quality: int | None) -> tuple[str, bytes]:
    buffer, image = io.BytesIO(), Image.fromarray(rgb)
    if quality is not None:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
        return "jpg", buffer.getvalue()
    if max(image.size) > _WEBP_MAX_SIDE:
        image.save(buffer, "PNG")
        return "png", buffer.getvalue()
    image.save(buffer, "WEBP", lossless=True, quality=0, method=0)  # effort 0: 7 times as fast, a tenth larger
    return "webp", buffer.getvalue()


def _prepare_all(items: list[Item], options: ShardOptions, workers: int) -> Iterator[_Prepared | Skipped]:
    """`_prepare` over processes: results in the order of the items, few of them in flight."""
    if workers == 1:
        yield from (_prepare(item, options) for item in items)
        return
    # fork starts at once and imports nothing; these processes touch neither torch nor its threads
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(method), initializer=_start_worker)
    pending: deque[Future[_Prepared | Skipped]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(_prepare, item, options))
            if len(pending) >= 3 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise DataError("a decoding process was killed, likely for want of memory; give fewer `workers`") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata


def _check(options: ShardOptions, out: Path, overwrite: bool) -> None:
    for name, low, high in (
        ("min_side", 1, None),
        ("quality", 1, 100),
        ("shard_samples", 1, None),
        ("shard_bytes", 1, None),
    ):
        value = getattr(options, name)
        if value is not None and (value < low or (high is not None and value > high)):
            raise DataError(f"{name}={value}: must be at least {low}" + (f" and at most {high}" if high else ""))
    if options.max_side is not None and options.max_side < options.min_side:
        raise DataError(f"max_side={options.max_side}: must be at least min_side={options.min_side}")
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: exists and is not a folder; choose another")
    names = {path.name for path in out.iterdir()}
    foreign = {name for name in names if name != INDEX_NAME and not re.fullmatch(r"shard-\d+\.tar", name)}
    if foreign or (names and INDEX_NAME not in names):
        raise DataError(f"{out}: exists and holds other things than shards; choose another folder")
    if names and not overwrite:
        raise DataError(f"{out}: holds shards already; choose another folder, or ask to overwrite it")


def _explain(skipped: list[Skipped], options: ShardOptions) -> str:
    counts = count_by_reason(skipped)
    first = skipped[0]
    return (
        f"{counts['broken']} broken, {counts['small']} with a side under min_side={options.min_side} "
        f"(the first: {first.name}: {first.detail})"
    )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
