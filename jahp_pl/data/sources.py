"""Finds photographs in folders, single files and tar archives, as a sorted list."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.tar import MAX_PHOTO_BYTES, ArchiveError, is_image_name, list_members
from jahp_pl.errors import first_line
from jahp_pl.images.io import SUFFIXES


class FoundPhoto(NamedTuple):
    """One photograph that was found but not read yet."""

    name: str
    """Path below the source, independent of where the source is."""
    path: str
    """File that contains it."""
    offset: int
    """Bytes from the start of that file."""
    size: int
    """Bytes; -1 means up to the end of the file."""

    def read(self) -> bytes:
        """Read the image file; the result is shorter than `size` if the archive is truncated.

        Raises:
            OSError: if it cannot be read or is too large.
        """
        if not Path(self.path).is_file() and Path(self.path).exists():
            raise OSError("not a regular file")
        size = self.size if self.size >= 0 else Path(self.path).stat().st_size
        if size > MAX_PHOTO_BYTES:
            raise OSError(f"has {size} bytes, more than the {MAX_PHOTO_BYTES} allowed for a photograph")
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class FoundPhotos(NamedTuple):
    """All photographs that were found in some sources."""

    photos: list[FoundPhoto]
    """Sorted by name; for equal names, in the order of the sources."""
    skipped: list[Skipped]
    """Folders that could not be read, and archives that could not be read to their end."""


def find_photos(sources: Sequence[str | Path]) -> FoundPhotos:
    """Search folders (recursively) and archives; a file that is given explicitly may have any suffix.

    Only names and positions are kept in memory, about 300 bytes per photograph.

    Raises:
        DataError: if a source does not exist, or none contains a photograph.
    """
    found = FoundPhotos([], [])
    for source in map(Path, sources):
        if source.is_dir():
            for path in _walk(source, found.skipped):
                _add(path, str(path.relative_to(source)), found)
        elif source.exists():
            _add(source, source.name, found)
        else:
            raise DataError(f"{source}: no such file or folder; check the path")
    if not found.photos and not found.skipped:
        names = ", ".join(str(source) for source in sources) or "no source"
        raise DataError(f"{names}: no photographs found; looked for {' '.join(sorted(SUFFIXES))} and .tar")
    found.photos.sort(key=lambda photo: photo.name)
    return found


def _add(path: Path, name: str, found: FoundPhotos) -> None:
    """Add a photograph, or the photographs of an archive."""
    if path.suffix.lower() != ".tar":
        found.photos.append(FoundPhoto(escape_name(name), str(path), 0, -1))
        return
    try:
        for member in list_members(path):
            found.photos.append(FoundPhoto(escape_name(f"{name}/{member.name}"), str(path), member.offset, member.size))
    except ArchiveError as error:
        found.skipped.append(Skipped(escape_name(name), "broken", escape_name(str(error))))


def escape_name(name: str) -> str:
    """Write bytes of a name that are not UTF-8 as \\xNN, so that it can be shown and stored."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _walk(folder: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """Yield the image files and archives below a folder, without hidden ones; add unreadable folders to `skipped`."""

    def skip(error: OSError) -> None:
        name = os.path.relpath(os.fsdecode(error.filename), folder)
        skipped.append(Skipped(escape_name(name), "broken", f"the folder cannot be read ({first_line(error)})"))

    for parent, folders, files in os.walk(folder, onerror=skip):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_image_name(name) or (name.lower().endswith(".tar") and not name.startswith(".")):
                yield Path(parent) / name
