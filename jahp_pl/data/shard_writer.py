"""Writes shards: tar files determined by their content alone, in a folder that appears completely or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from jahp_pl.data.index import DataError, ShardEntry
from jahp_pl.errors import WriteError
from jahp_pl.files.folders import new_folder


class ShardPacker:
    """Writer of photographs to numbered tar files, without times or owners; a full file is followed by a new one.

    Used in a `with` statement, it closes an unfinished shard after an error.

    Args:
        folder: existing folder to write to.
        max_samples: maximum number of photographs per shard.
        max_bytes: maximum bytes of photographs per shard, unless a single one is larger.
    """

    def __init__(self, folder: Path, max_samples: int, max_bytes: int) -> None:
        self.entries: list[ShardEntry] = []
        """The finished shards."""
        self._folder, self._max_samples, self._max_bytes = folder, max_samples, max_bytes
        self._tar: tarfile.TarFile | None = None
        self._num_samples = self._num_bytes = self._num_before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._tar is not None:
            self._tar.close()

    def add(self, name: str, suffix: str, data: bytes) -> None:
        """Append one photograph as `{running number}_{sanitized name}.{suffix}`; `suffix` has no dot."""
        if self._num_samples >= self._max_samples or self._num_bytes + len(data) > self._max_bytes:
            self.close()
        if self._tar is None:
            self._tar = tarfile.open(self._path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", Path(name).stem)[:60].strip("_")
        info = tarfile.TarInfo(f"{self._num_before + self._num_samples:08d}_{stem}.{suffix}")
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))
        self._num_samples, self._num_bytes = self._num_samples + 1, self._num_bytes + len(data)

    def close(self) -> None:
        """Finish the open shard, if any."""
        if self._tar is None:
            return
        self._tar.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.entries.append(ShardEntry(self._path.name, self._num_samples, self._path.stat().st_size, digest))
        self._num_before += self._num_samples
        self._tar, self._num_samples, self._num_bytes = None, 0, 0

    @property
    def _path(self) -> Path:
        return self._folder / f"shard-{len(self.entries):06d}.tar"


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out` that becomes `out` at the end, or is removed after an error.

    Raises:
        DataError: if another process writes it, or it cannot be written for lack of space or permission.
    """
    try:
        with new_folder(out) as folder:
            yield folder
    except WriteError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{out}: cannot be written ({reason}); free some space or choose another folder") from None
