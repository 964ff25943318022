"""Reads photographs from shards without decoding them; unreadable ones are items too, so that they are counted."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, NamedTuple, cast

from jahp_pl.addresses import is_remote, without_credentials
from jahp_pl.data.cache import ShardCache
from jahp_pl.data.index import DataError, ShardEntry, Skipped
from jahp_pl.data.remote import READ_BYTES, open_shard
from jahp_pl.data.tar import ArchiveError, stream_members

_MAX_SHARDS_WITHOUT_PHOTO = 10
"""Consecutive unreadable shards after which reading ends with an error."""


class Photo(NamedTuple):
    """One photograph of a shard, not decoded yet."""

    name: str
    """Address of the shard and name inside it."""
    data: bytes
    """Content of the image file."""


Item = Photo | Skipped
"""One entry of a shard, readable or not."""


class DrawCounts(NamedTuple):
    """Number of photographs and shards drawn, usable or not."""

    photos: int = 0
    """Photographs, counting each draw; the unreadable rest of a damaged shard counts as one."""
    shards: int = 0
    """Shards whose reading began."""
    broken_shards: int = 0
    """Shards among these that could not be read to their end."""

    def plus(self, other: DrawCounts) -> DrawCounts:
        """Add two counts."""
        return DrawCounts(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass
class ShardReader:
    """Reader of shards, through a cache or directly, that counts what it reads."""

    timeout: float = 30.0
    """Seconds that each `READ_BYTES` of a download may take."""
    cache: ShardCache | None = None
    """Cache for downloads; None to download a shard each time."""
    index_entries: Mapping[str, ShardEntry] = field(default_factory=dict)
    """Index entries by address; without a cache, downloads are verified against them while they are read."""
    drawn: DrawCounts = field(default_factory=DrawCounts)
    """Counts of shards since `take_counts`."""

    def take_counts(self) -> DrawCounts:
        """Return the counts so far and reset them."""
        drawn, self.drawn = self.drawn, DrawCounts()
        return drawn

    def read(self, urls: Iterable[str]) -> Iterator[Item]:
        """Yield the photographs of shards; the unreadable rest of a damaged shard counts as one broken item.

        Raises:
            DataError: if ten shards in a row have no readable photograph, or an intact one has none.
        """
        num_without_photo = 0
        for url in urls:
            num_photos, shown = 0, without_credentials(url)
            self.drawn = self.drawn.plus(DrawCounts(shards=1))
            try:
                for photo in self._members(url):
                    num_photos += 1
                    yield photo
            except (ArchiveError, OSError) as error:
                self.drawn = self.drawn.plus(DrawCounts(broken_shards=1))
                num_without_photo = 0 if num_photos else num_without_photo + 1
                reason = getattr(error, "strerror", None) or str(error)
                if num_without_photo == _MAX_SHARDS_WITHOUT_PHOTO:
                    raise DataError(
                        f"{shown}: no photograph in {num_without_photo} shards in a row, the last: {reason}; "
                        "repair the shards, or correct their addresses"
                    ) from None
                yield Skipped(shown, "broken", reason)
            else:
                num_without_photo = 0
                if num_photos == 0:
                    raise DataError(
                        f"{shown}: this shard has no photographs; remove it or write it again with `jahp shards`"
                    )

    def _members(self, url: str) -> Iterator[Photo]:
        """Yield the photographs of a shard; if it is damaged in the cache, download it again and continue."""
        num_read = 0
        try:
            for photo in _photos(self._open(url), url):
                num_read += 1
                yield photo
        except (ArchiveError, OSError):
            if self.cache is None or not self.cache.renew(url):
                raise
            yield from islice(_photos(self._open(url), url), num_read, None)

    def _open(self, url: str) -> BinaryIO:
        if self.cache is not None and is_remote(url):
            return self.cache.open(url)
        stream = open_shard(url, self.timeout)
        is_verified = url in self.index_entries and is_remote(url)
        return cast(BinaryIO, _VerifiedDownload(stream, self.index_entries[url])) if is_verified else stream


class _VerifiedDownload(io.RawIOBase):
    """A download that is verified against its index while it is read."""

    def __init__(self, stream: BinaryIO, entry: ShardEntry) -> None:
        self._stream, self._entry = stream, entry
        self._digest, self._count = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._digest.update(data)
        self._count += len(data)
        return len(data)

    def finish(self) -> None:
        """Read the rest and compare it with the index.

        Raises:
            OSError: if the content does not match the index.
        """
        while self._count <= self._entry.bytes and self.read(READ_BYTES):
            pass
        if (self._count, self._digest.hexdigest()) != (self._entry.bytes, self._entry.sha256):
            raise OSError("does not match its index.json")

    def close(self) -> None:
        self._stream.close()
        super().close()


def _photos(stream: BinaryIO, url: str) -> Iterator[Photo]:
    with contextlib.closing(stream):
        for member in stream_members(stream):
            yield Photo(f"{without_credentials(url)}/{member.name}", member.data)
        if isinstance(stream, _VerifiedDownload):
            stream.finish()
