"""Caches downloaded shards on a local disk, for all processes of a machine.

webdataset's own cache names a shard by the last part of its address, so the shard-000000.tar of two folders collide; it
makes a download visible before checking it, and checks only 512 bytes; and every worker downloads for itself.

Guarantees: a file in the folder was received completely, and a shard that is opened has the SHA-256 of its index,
whatever has happened to the disk or to the original since. One process downloads a shard while the others wait. The
least recently used shards are removed first; the folder exceeds its limit only by shards that are being downloaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from jahp_pl.data.index import DataError, ShardEntry
from jahp_pl.data.remote import READ_BYTES, open_shard
from jahp_pl.data.tar import MAX_SHARD_BYTES, ArchiveError, stream_members
from jahp_pl.errors import WriteError, write_errors
from jahp_pl.files.locks import hold_lock

_TRIES = 2
"""Maximum number of attempts to download a shard that matches its index."""


class ShardCache:
    """A cache folder through which shards are opened.

    Args:
        folder: folder on a local disk; created when needed.
        max_bytes: maximum total size of the shards in the folder.
        timeout: seconds that each `READ_BYTES` of a download may take.
        index_entries: index entries by address; a shard without one is checked by reading it to its end.
    """

    def __init__(self, folder: Path, max_bytes: int, timeout: float, index_entries: Mapping[str, ShardEntry]) -> None:
        self._folder, self._max_bytes, self._timeout, self._index_entries = folder, max_bytes, timeout, index_entries
        self._renewed: set[str] = set()

    def open(self, url: str) -> BinaryIO:
        """Open a shard from the folder, and download it first if it is not there.

        Raises:
            OSError: if it cannot be downloaded, or two downloads in a row do not match its index.
            DataError: if the folder cannot be written.
        """
        file = self._find(url)
        while file is None:
            self._fetch(url)
            file = self._find(url)
        return file

    def renew(self, url: str) -> bool:
        """Remove a shard that turned out to be damaged, so that it is downloaded again.

        Returns:
            False if nothing was removed: this process has removed it once already, or the original itself is damaged.
        """
        if url in self._renewed or not self._intact_path(url).exists():
            return False
        self._renewed.add(url)
        self._intact_path(url).unlink(missing_ok=True)
        return True

    def _intact_path(self, url: str) -> Path:
        digest = hashlib.sha256(url.encode(errors="surrogateescape"))
        return self._folder / f"{digest.hexdigest()[:32]}.tar"

    def _damaged_path(self, url: str) -> Path:
        """Return the path for a shard without an index whose original is damaged; it is readable up to the damage."""
        return self._intact_path(url).with_suffix(".cut")

    def _find(self, url: str) -> BinaryIO | None:
        """Open a shard that is in the folder; remove it if it does not match its index."""
        for path in (self._intact_path(url), self._damaged_path(url)):
            with suppress(FileNotFoundError, NotADirectoryError):
                file = path.open("rb")
                if self._matches_index(file, url):
                    with suppress(OSError):
                        os.utime(path)  # records the last use; fails in a read-only folder
                    return file
                file.close()
                path.unlink(missing_ok=True)
        return None

    def _matches_index(self, file: BufferedReader, url: str) -> bool:
        """Check a file against the index. This takes 0.2 s for 100 MB, and the shard is then read from the page
        cache."""
        entry = self._index_entries.get(url)
        if entry is None:
            return True
        if os.fstat(file.fileno()).st_size != entry.bytes:
            return False
        is_equal = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        file.seek(0)
        return is_equal

    def _fetch(self, url: str) -> None:
        """Download a shard; if another process is downloading it already, wait for that process instead."""
        try:
            with self._lock(self._intact_path(url).stem):
                if (found := self._find(url)) is not None:  # another process was faster
                    found.close()
                    return
                self._download(url)
            self._make_room(url)
        except WriteError as error:
            raise DataError(f"data.cache_dir: {error}; lower data.cache_bytes if the disk is too small") from None

    def _download(self, url: str) -> None:
        """Download a shard, and again if it is damaged; if both copies are equally damaged, so is the original."""
        part = self._intact_path(url).with_suffix(".part")
        previous = ""
        for _ in range(_TRIES):
            digest = self._receive(url, part)
            is_intact = digest == self._index_entries[url].sha256 if url in self._index_entries else _is_intact(part)
            if is_intact or (url not in self._index_entries and digest == previous):
                part.replace(self._intact_path(url) if is_intact else self._damaged_path(url))
                return
            previous = digest
        part.unlink(missing_ok=True)
        wrong = "does not match its index.json" if url in self._index_entries else "is damaged, differently each time"
        raise OSError(f"downloaded {_TRIES} times, {wrong}")

    def _receive(self, url: str, part: Path) -> str:
        """Download the shard once, and return its SHA-256."""
        digest = hashlib.sha256()
        try:
            with open_shard(url, self._timeout) as stream, self._create(part) as file:
                limit = self._index_entries[url].bytes if url in self._index_entries else MAX_SHARD_BYTES
                while data := stream.read(READ_BYTES):
                    if file.tell() + len(data) > limit:
                        raise OSError(f"exceeds {limit} bytes")
                    digest.update(data)
                    with write_errors(self._folder):
                        file.write(data)
                with write_errors(self._folder):
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return digest.hexdigest()

    def _make_room(self, url: str) -> None:
        """Remove abandoned downloads, and the least recently used other shards until the folder is within its limit."""
        with self._lock("room"):
            files = []
            for path in self._folder.iterdir():
                if path.suffix == ".part":
                    self._remove_abandoned(path)
                elif path.suffix in (".tar", ".cut"):
                    with suppress(FileNotFoundError):
                        stat = path.stat()
                        files.append((stat.st_mtime, stat.st_size, path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self._max_bytes:
                    break
                if path not in (self._intact_path(url), self._damaged_path(url)):
                    path.unlink(missing_ok=True)  # processes that have it open can still read it
                    total -= size

    def _remove_abandoned(self, part: Path) -> None:
        """Remove an unfinished download unless a process is downloading it, which then holds its lock."""
        with suppress(WriteError), hold_lock(part.with_suffix(".lock"), "is being downloaded"):
            part.unlink(missing_ok=True)

    def _lock(self, name: str) -> AbstractContextManager[int]:
        return hold_lock(self._folder / f"{name}.lock", path_in_errors=self._folder)

    def _create(self, path: Path) -> BinaryIO:
        with write_errors(self._folder):
            return path.open("wb")


def _is_intact(path: Path) -> bool:
    """Check whether an archive can be read up to its end mark."""
    try:
        with path.open("rb") as file:
            for _ in stream_members(file):
                pass
    except ArchiveError:
        return False
    return True
