"""Packs photographs into webdataset shards: tar files of images that are read front to back, and an `index.json`.

Guarantees: the same photographs, options and libraries give the same bytes, for any number of processes. Pixels are
upright 8-bit sRGB. A photograph stored as JPEG is its unchanged original; all others are stored losslessly (unless
`quality` is given). The output folder appears completely or not at all.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jahp_pl.data.index import INDEX_NAME, DataError, ShardEntry, ShardIndex, Skipped, count_by_reason
from jahp_pl.data.prepare import PreparedPhoto, ShardOptions
from jahp_pl.data.prepare_all import prepare_all
from jahp_pl.data.shard_writer import ShardPacker, atomic_folder
from jahp_pl.data.sources import find_photos
from jahp_pl.images.io import import_formats


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
    chosen = found.photos[options.part - 1 :: options.num_parts]
    if not chosen and options.num_parts > 1:
        raise DataError(f"part {options.part}/{options.num_parts}: has no photographs; use fewer parts")
    if options.shuffle:
        random.Random(options.seed).shuffle(chosen)
    prepared = prepare_all(chosen, options, workers)
    import_formats()  # once for all processes; and an interrupt during an import could not clear up the folder
    with atomic_folder(out) as folder:
        _check_out(out, overwrite)  # again, because another process may have written it since
        has_tiles = options.tile is not None and options.shuffle
        packed = _pack(prepared, folder / "tiles" if has_tiles else folder, options, len(chosen), progress)
        skipped = [*found.skipped, *packed.skipped]
        if not packed.entries:
            reasons = _describe_skipped(skipped, options)
            raise DataError(f"no usable photograph among {len(chosen) or 'the archives'}: {reasons}; give others")
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
    found = find_photos([tiles]).photos
    random.Random(options.seed).shuffle(found)
    with ShardPacker(folder, options.shard_samples, options.shard_bytes) as packer:
        for tile in found:
            name = Path(tile.name)
            packer.add(name.name.partition("_")[2], name.suffix[1:], tile.read())
        packer.close()
    shutil.rmtree(tiles)
    return packer.entries


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
