"""Packs photographs into webdataset shards: tar files of images that are read front to back, and an `index.json`.

Guarantees: the same photographs, options and libraries give the same bytes, for any number of processes. Pixels are
upright 8-bit sRGB. A photograph stored as JPEG is its unchanged original; all others are stored losslessly (unless
`quality` is given). The output folder appears completely or not at all.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jahp_pl.data.index import INDEX_NAME, DataError, ShardEntry, ShardIndex, Skipped, count_by_reason
from jahp_pl.data.prepare import PreparedPhoto, ShardOptions, prepare
from jahp_pl.data.shard_writer import ShardPacker, atomic_folder
from jahp_pl.data.sources import FoundPhoto, find_photos
from jahp_pl.images.io import import_formats

_DELAYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "pthread_sigmask") else ()
"""Signals that wait while processes are started; none on Windows."""


class ShardReport(NamedTuple):
    """Result of `write_shards`."""

    out: Path
    """The folder."""
    num_shards: int
    """Number of tar files in it."""
    num_samples: int
    """Number of photographs or tiles in them."""
    num_as_is: int
    """Number of photographs whose original bytes are stored unchanged."""
    num_bytes: int
    """Size of all shards."""
    num_pixels: int
    """Total number of pixels."""
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

    Memory holds a few photographs per process, plus the names and 16-byte digests of all (`make streams` measures it).
    Tiles are shuffled by writing them twice, so the disk temporarily holds them twice.

    Args:
        sources: folders (searched recursively), image files, uncompressed tar archives.
        out: folder to create.
        options: sizes, storage and order; None for the defaults.
        workers: number of decoding processes; None for one per core, 1 to decode in this process.
        overwrite: replace `out` if it is a folder of shards.
        progress: called with (photographs done, photographs found).

    Raises:
        DataError: if an option is out of range, no photograph is usable, `out` exists, or the disk is full. Nothing is
            left behind.
    """
    options, out = options or ShardOptions(), Path(out).absolute()
    _check_options(options)
    _check_out(out, overwrite)
    found = find_photos(sources)
    items = found.items[options.part - 1 :: options.num_parts]
    if not items and options.num_parts > 1:
        raise DataError(f"part {options.part}/{options.num_parts}: has no photographs; use fewer parts")
    if options.shuffle:
        random.Random(options.seed).shuffle(items)
    photos = _prepare_all(items, options, workers or _num_cores())
    import_formats()  # once for all processes; and an interrupt during an import could not clear up the folder
    with atomic_folder(out) as folder:
        _check_out(out, overwrite)  # again, because another process may have written it since
        has_tiles = options.tile is not None and options.shuffle
        packed = _pack(photos, folder / "tiles" if has_tiles else folder, options, len(items), progress)
        skipped = [*found.skipped, *packed.skipped]
        if not packed.entries:
            reasons = _describe_skipped(skipped, options)
            raise DataError(f"no usable photograph among {len(items) or 'the archives'}: {reasons}; give others")
        entries = _shuffle_tiles(folder / "tiles", folder, options) if has_tiles else packed.entries
        ShardIndex(tuple(entries), tuple(skipped), packed.num_pixels).dump(folder)
    num_samples, num_bytes = sum(entry.samples for entry in entries), sum(entry.bytes for entry in entries)
    return ShardReport(out, len(entries), num_samples, packed.num_as_is, num_bytes, packed.num_pixels, tuple(skipped))


class _Packed(NamedTuple):
    """What `_pack` wrote and left out."""

    entries: list[ShardEntry]
    skipped: list[Skipped]
    num_as_is: int
    num_pixels: int


def _pack(
    photos: Iterator[PreparedPhoto | Skipped],
    folder: Path,
    options: ShardOptions,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> _Packed:
    """Write photographs to shards in the given order, without duplicates."""
    seen: set[bytes] = set()
    skipped: list[Skipped] = []
    num_as_is = num_pixels = 0
    folder.mkdir(exist_ok=True)
    with ShardPacker(folder, options.shard_samples, options.shard_bytes) as packer:
        for done, photo in enumerate(photos, start=1):
            if isinstance(photo, Skipped):
                skipped.append(photo)
            elif photo.digest in seen:
                skipped.append(Skipped(photo.name, "duplicate", "the same pixels as an earlier photograph"))
            else:
                seen.add(photo.digest)
                num_as_is += photo.as_is
                for name, suffix, data, pixels in photo.stored:
                    packer.add(name, suffix, data)
                    num_pixels += pixels
            if progress is not None:
                progress(done, total)
        packer.close()
    return _Packed(packer.entries, skipped, num_as_is, num_pixels)


def _shuffle_tiles(tiles: Path, folder: Path, options: ShardOptions) -> list[ShardEntry]:
    """Write the tiles to shards in random order, so that tiles of one photograph are not adjacent."""
    found = find_photos([tiles]).items
    random.Random(options.seed).shuffle(found)
    with ShardPacker(folder, options.shard_samples, options.shard_bytes) as packer:
        for item in found:
            name = Path(item.name)
            packer.add(name.name.partition("_")[2], name.suffix[1:], item.read())
        packer.close()
    shutil.rmtree(tiles)
    return packer.entries


def _prepare_all(items: list[FoundPhoto], options: ShardOptions, workers: int) -> Iterator[PreparedPhoto | Skipped]:
    """Run `prepare` in several processes, which stay a few items ahead; yield the results in the order of the items."""
    if workers == 1:
        yield from (prepare(item, options) for item in items)
        return
    # fork starts quickly and imports nothing. It is safe, because these processes use neither torch nor its threads.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context(method), initializer=_start_worker, initargs=(os.getpid(),)
    )
    pending: deque[Future[PreparedPhoto | Skipped]] = deque()
    try:
        for item in items:
            with _signals_delayed():  # because submitting may start processes
                pending.append(pool.submit(prepare, item, options))
            if len(pending) >= 3 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a decoding process was killed, probably for lack of memory; free some, or use fewer processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Prepare a decoding process: leave interrupts to the parent, end with it, and show no warnings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore")  # Pillow's warnings about odd metadata
    if _DELAYED:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _DELAYED)


@contextmanager
def _signals_delayed() -> Iterator[None]:
    """Delay signals to the end of the block, and in processes that are started in it until they are prepared.

    An exception that a signal handler raises during a fork can get lost, because Python ignores those of fork hooks.
    """
    if not _DELAYED:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DELAYED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_with(parent: int) -> None:
    """End this process when its parent has ended, even if the parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _check_options(options: ShardOptions) -> None:
    """Refuse options out of range."""
    for name, low, high in (
        ("min_side", 1, None),
        ("quality", 1, 100),
        ("max_pixels", 1, None),
        ("tile", 2 * options.min_side, None),
        ("num_parts", 1, None),
        ("part", 1, options.num_parts),
        ("shard_samples", 1, None),
        ("shard_bytes", 1, None),
    ):
        value = getattr(options, name)
        if value is not None and (value < low or (high is not None and value > high)):
            raise DataError(f"{name}={value}: must be at least {low}" + (f" and at most {high}" if high else ""))
    if options.max_side is not None and options.max_side < options.min_side:
        raise DataError(f"max_side={options.max_side}: must be at least min_side={options.min_side}")


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse an output that holds anything but shards, or shards that may not be overwritten."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: exists and is not a folder; choose another folder")
    names = {path.name for path in out.iterdir()}
    foreign = {name for name in names if name != INDEX_NAME and not re.fullmatch(r"shard-\d+\.tar", name)}
    if foreign or (names and INDEX_NAME not in names):
        raise DataError(f"{out}: exists and contains files other than shards; choose another folder")
    if names and not overwrite:
        raise DataError(f"{out}: already contains shards; replace them with --force, or choose another folder")


def _describe_skipped(skipped: list[Skipped], options: ShardOptions) -> str:
    counts = count_by_reason(skipped)
    first = skipped[0]
    return (
        f"{counts['broken']} broken, {counts['small']} with a side under min_side={options.min_side}, "
        f"{counts['large']} over max_pixels={options.max_pixels} "
        f"(the first: {first.name}: {first.detail})"
    )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
