"""Resolves the entries of `data.train` and `data.val` to shards, which are checked before anything starts."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from webdataset.shardlists import expand_urls

from jahp_pl.addresses import is_remote, without_credentials
from jahp_pl.data.braces import MAX_NAMES, count_names
from jahp_pl.data.index import INDEX_NAME, MAX_INDEX_BYTES, DataError, ShardEntry, ShardIndex
from jahp_pl.data.remote import check_address, open_shard
from jahp_pl.files.folders import recover_if_missing


class Shards(NamedTuple):
    """The shards that the entries of a setting stand for."""

    urls: list[str]
    """Absolute paths and URLs, in the order given; matches of a glob are sorted."""
    index_entries: dict[str, ShardEntry]
    """Index entries by URL."""


def expand_shards(entries: Sequence[str], key: str, timeout: float = 30.0) -> Shards:
    """Resolve the entries of a setting to shards.

    Args:
        entries: folders with an `index.json`, paths, globs, brace patterns, and URLs (see `remote`); a URL that ends in
            /, and any entry that ends in /index.json, means the shards of that index.
        key: name of the setting for error messages.
        timeout: seconds that reading an index may take.

    Raises:
        DataError: if there is no entry, a shard is missing or empty, a folder has no index, a glob matches nothing, or
            an address cannot be read on this machine.
    """
    shards = Shards([], {})
    for entry in entries:
        if is_remote(entry):
            for url in _braces(entry, key):
                _add_remote(url, key, timeout, shards)
        else:
            shards.urls.extend(_local(entry, key))
    if not shards.urls:
        raise DataError(f"{key}: no shards given; write some with `jahp shards PHOTOS -o DIR`, then {key}=[DIR]")
    return shards


def _add_remote(url: str, key: str, timeout: float, shards: Shards) -> None:
    """Add the shard at an address, or all shards of the index at an address."""
    try:
        check_address(url)
    except OSError as error:
        raise DataError(f"{key}: {without_credentials(url)}: {error}") from None
    folder = url.removesuffix(INDEX_NAME)
    if url.startswith("pipe:") or not folder.endswith("/"):
        shards.urls.append(url)
        return
    shown = without_credentials(folder + INDEX_NAME)
    try:
        with open_shard(folder + INDEX_NAME, timeout) as stream:
            index = ShardIndex.parse(stream.read(MAX_INDEX_BYTES + 1), shown)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{key}: {shown}: {reason}; correct {key}, or give the .tar files") from None
    for entry in index.shards:
        shards.urls.append(folder + entry.name)
        shards.index_entries[folder + entry.name] = entry


def _local(entry: str, key: str) -> list[str]:
    """Resolve a path, folder, glob or brace pattern to existing files.

    Raises:
        DataError: see `expand_shards`.
    """
    # absolute, because webdataset would parse a relative "a:b.tar" as a URL
    name = re.sub("^file:(//)?", "", entry, flags=re.IGNORECASE)
    path = Path(os.path.expanduser(name)).absolute()  # noqa: PTH111  keeps ~ of an unknown user
    files = _files(path, key)
    if not files:
        raise DataError(f"{key}: {path}: no shard matches; give a folder that `jahp shards` wrote, or .tar files")
    for file in files:
        if not file.is_file():
            raise DataError(f"{key}: {file}: no such shard; write it with `jahp shards`, or correct {key}")
        if file.stat().st_size == 0:
            raise DataError(f"{key}: {file}: is empty; remove it or write it again with `jahp shards`")
    return [str(file) for file in files]


def _files(path: Path, key: str) -> list[Path]:
    """Return the paths that an entry stands for; some may not exist."""
    if path.name == INDEX_NAME:  # as for URLs
        path = path.parent
    recover_if_missing(path)
    if path.is_dir():
        if not (path / INDEX_NAME).exists():
            raise DataError(f"{key}: {path}: no {INDEX_NAME} in this folder; write it with `jahp shards` or give *.tar")
        return [path / shard.name for shard in ShardIndex.load(path).shards]
    if path.exists():  # even if its name contains special characters
        return [path]
    if any(letter in str(path) for letter in "*?["):
        return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207  absolute
    return [Path(match) for match in _braces(str(path), key)]


def _braces(pattern: str, key: str) -> list[str]:
    """Expand the braces of a pattern, unless they stand for too many names."""
    if (count := count_names(pattern)) > MAX_NAMES:
        raise DataError(f"{key}: {pattern}: expands to {count:,} names, more than {MAX_NAMES:,}; correct its ranges")
    try:
        return list(expand_urls(pattern))
    except ValueError as error:
        raise DataError(f"{key}: {pattern}: {error}; write ranges as {{000..017}}") from None
