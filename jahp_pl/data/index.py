"""`index.json`: what a folder of shards holds, and what was left out of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

INDEX_NAME = "index.json"
_FORMAT, _VERSION = "jahp-shards", 1

Reason = Literal["broken", "small", "duplicate"]


class DataError(ValueError):
    """Photographs or shards that cannot be used; the message is one line that names the thing and the remedy."""


class Skipped(NamedTuple):
    """A photograph that was left out."""

    name: str
    """Its path below the folder or archive that was searched, or its name inside a shard."""
    reason: Reason
    """broken: unreadable, an animation, or not an image; small: a side too short; duplicate: the same pixels."""
    detail: str
    """What exactly was wrong, in a few words."""


class ShardEntry(NamedTuple):
    """One shard of a folder."""

    name: str
    """File name."""
    samples: int
    """Photographs in it."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Hexadecimal digest of the file."""


class ShardIndex(NamedTuple):
    """The content of `index.json`."""

    shards: tuple[ShardEntry, ...]
    """In the order they were written."""
    skipped: tuple[Skipped, ...]
    """In the order they were met."""
    pixels: int
    """Height times width, over all photographs."""

    def dump(self, folder: Path) -> None:
        """Write `index.json`, sync it to the disk, with totals in front for those who open the file."""
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
        with (folder / INDEX_NAME).open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls, folder: Path) -> ShardIndex:
        """Read `index.json` of a folder of shards.

        Raises:
            DataError: no such file, a damaged one, or one that a later version wrote.
        """
        path = folder / INDEX_NAME
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); write it with `jahp shards`") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, data: bytes, name: str) -> ShardIndex:
        """The content of a file called `name`.

        Raises:
            DataError: as `load`.
        """
        try:
            content = json.loads(data)
            if content["format"] != _FORMAT:
                raise DataError(f"{name}: not an index of shards; write the folder with `jahp shards`")
            if content["version"] > _VERSION:
                raise DataError(f"{name}: written by a later version of jahp_pl; upgrade it to read these shards")
            shards = tuple(ShardEntry(**entry) for entry in content["shards"])
            return cls(shards, tuple(Skipped(**entry) for entry in content["skipped"]), int(content["pixels"]))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{name}: damaged; write the folder again with `jahp shards`") from None


def count_by_reason(skipped: Sequence[Skipped]) -> dict[Reason, int]:
    """How many were left out for each reason, zeros included."""
    reasons: tuple[Reason, ...] = ("broken", "small", "duplicate")
    return {reason: sum(s.reason == reason for s in skipped) for reason in reasons}
