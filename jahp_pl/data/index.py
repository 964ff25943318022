"""Reads and writes `index.json`, which lists the shards of a folder and the photographs that were left out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jahp_pl.errors import JahpError
from jahp_pl.files import json_content
from jahp_pl.files.atomic import write_synced
from jahp_pl.text import encoded

INDEX_NAME = "index.json"
MAX_INDEX_BYTES = 2**26
"""Maximum size of an index; larger ones are not read."""
_FORMAT, _VERSION = "jahp-shards", 1

Reason = Literal["broken", "small", "large", "duplicate"]
"""Why a photograph was left out, see `Skipped`."""


class DataError(JahpError, ValueError):
    """Unusable photographs or shards; the message is one line that names them and the remedy."""


class Skipped(NamedTuple):
    """A photograph that was left out."""

    name: str
    """Its path below the folder or archive that was searched, or its name inside a shard."""
    reason: Reason
    """broken: unreadable, an animation, or not an image; small: a side is too short; large: too many pixels; duplicate:
    same pixels as an earlier one."""
    detail: str
    """The reason in a few words, e.g. the size of a small photograph."""


class ShardEntry(NamedTuple):
    """One shard of a folder."""

    name: str
    """File name."""
    samples: int
    """Number of photographs in it."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Hexadecimal digest of the file."""


class ShardIndex(NamedTuple):
    """Content of `index.json`."""

    shards: tuple[ShardEntry, ...]
    """In the order in which they were written."""
    skipped: tuple[Skipped, ...]
    """In the order in which they were found."""
    pixels: int
    """Total number of pixels of all photographs."""

    def dump(self, folder: Path) -> None:
        """Write `index.json` with totals at the top for human readers, and sync it to disk."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "samples": sum(shard.samples for shard in self.shards),
            "bytes": sum(shard.bytes for shard in self.shards),
            "pixels": self.pixels,
            "num_skipped": count_by_reason(self.skipped),
            "shards": [shard._asdict() for shard in self.shards],
            "skipped": [skipped._asdict() for skipped in self.skipped],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_synced(folder / INDEX_NAME, encoded(text))

    @classmethod
    def load(cls, folder: Path) -> ShardIndex:
        """Read the `index.json` of a folder of shards.

        Raises:
            DataError: if the file is missing, damaged, or written by a later version.
        """
        path = folder / INDEX_NAME
        try:
            with path.open("rb") as file:
                content = file.read(MAX_INDEX_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); write it with `jahp shards`") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, data: bytes, name: str) -> ShardIndex:
        """Parse the content of a file called `name`.

        Raises:
            DataError: see `load`.
        """
        if len(data) > MAX_INDEX_BYTES:
            raise DataError(f"{name}: exceeds the maximum of {MAX_INDEX_BYTES} bytes; split it into several folders")
        try:
            content = json_content.parse(data)
            if content["format"] != _FORMAT:
                raise DataError(f"{name}: is not an index of shards; write the folder with `jahp shards`")
            if content["version"] > _VERSION:
                raise DataError(f"{name}: was written by a later version of jahp_pl; upgrade jahp_pl")
            shards = tuple(_validated(ShardEntry(**entry)) for entry in content["shards"])
            return cls(shards, tuple(Skipped(**entry) for entry in content["skipped"]), int(content["pixels"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{name}: is damaged; write the folder again with `jahp shards`") from None


def _validated(entry: ShardEntry) -> ShardEntry:
    """Return the entry; raise ValueError if it cannot belong to a shard in the folder of its index."""
    are_counts = all(type(count) is int and count >= 0 for count in (entry.samples, entry.bytes))
    is_name = isinstance(entry.name, str) and re.fullmatch(r"[^/\\\x00-\x1f\ud800-\udfff]+", entry.name)
    is_digest = isinstance(entry.sha256, str) and re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    if not (are_counts and is_name and is_digest) or entry.name in (".", ".."):
        raise ValueError
    return entry


def count_by_reason(skipped: Sequence[Skipped]) -> dict[Reason, int]:
    """Count the photographs that were left out for each reason, including zeros."""
    reasons: tuple[Reason, ...] = ("broken", "small", "large", "duplicate")
    return {reason: sum(s.reason == reason for s in skipped) for reason in reasons}
