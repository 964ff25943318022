"""Entries of `data.train` and `data.val` -> the shards they stand for, checked before anything starts."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from webdataset.shardlists import expand_urls

from jahp_pl.data.index import INDEX_NAME, DataError, ShardIndex


def expand_shards(entries: Sequence[str], key: str) -> list[str]:
    """The shards that the entries of a setting stand for.

    Args:
        entries: folders with an `index.json`, paths, globs, brace patterns, and URLs that webdataset opens (http,
            https, pipe, file and others).
        key: name of the setting, for errors.
    Returns:
        Absolute paths and URLs, in the order given; a glob's matches sorted.
    Raises:
        DataError: no entry, a missing or empty shard, a folder without index, a glob that matches nothing.
    """
    urls = [url for entry in entries for url in _expand(entry, key)]
    if not urls:
        raise DataError(f"{key}: no shards given; write some with `jahp shards PHOTOS --out DIR`, then {key}=[DIR]")
    return urls


def _expand(entry: str, key: str) -> list[str]:
    is_remote = entry.startswith("pipe:") or ("://" in entry and not entry.startswith("file:"))
    if is_remote:
        return _braces(entry, key)
    # absolute, because webdataset would take a relative "a:b.tar" for a URL
    path = Path(entry.removeprefix("file://").removeprefix("file:")).expanduser().absolute()
    files = _files(path, key)
    if not files:
        raise DataError(f"{key}: {path}: no shard matches; give a folder that `jahp shards` wrote, or .tar files")
    for file in files:
        if not file.is_file():
            raise DataError(f"{key}: {file}: no such shard; write it with `jahp shards`, or correct {key}")
        if file.stat().st_size == 0:
            raise DataError(f"{key}: {file}: an empty shard; remove it or write it again with `jahp shards`")
    return [str(file) for file in files]


def _files(path: Path, key: str) -> list[Path]:
    if path.is_dir():
        if not (path / INDEX_NAME).exists():
            raise DataError(f"{key}: {path}: no {INDEX_NAME} in this folder; write it with `jahp shards` or give *.tar")
        return [path / shard.name for shard in ShardIndex.load(path).shards]
    if path.exists():  # whatever letters its name has
        return [path]
    if any(letter in str(path) for letter in "*?["):
        return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207  absolute
    return [Path(match) for match in _braces(str(path), key)]


def _braces(pattern: str, key: str) -> list[str]:
    try:
        return list(expand_urls(pattern))
    except ValueError as error:
        raise DataError(f"{key}: {pattern}: {error}; write ranges as {{000..017}}") from None
