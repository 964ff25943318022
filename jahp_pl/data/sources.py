"""Finding photographs: folders, single files and tar archives -> a sorted list of items."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.tar import MAX_PHOTO_BYTES, ArchiveError, is_image_name, list_members
from jahp_pl.images.io import SUFFIXES


class Item(NamedTuple):
    """One photograph that was found, not read yet."""

    name: str
    """Path below the source, the same wherever the source lies."""
    path: str
    """File that holds it."""
    offset: int
    """Bytes from the start of that file."""
    size: int
    """Bytes; -1 is to the end of the file."""

    def read(self) -> bytes:
        """Raise OSError where the file cannot be read or is too large; a truncated archive gives fewer bytes."""
        if not Path(self.path).is_file() and Path(self.path).exists():
            raise OSError("not a regular file")
        size = self.size if self.size >= 0 else Path(self.path).stat().st_size
        if size > MAX_PHOTO_BYTES:
            raise OSError(f"takes {size} bytes, more than the {MAX_PHOTO_BYTES} of a photograph")
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class Found(NamedTuple):
    """All photographs of some sources."""

    items: list[Item]
    """Sorted by name; those of an earlier source first where names are equal."""
    skipped: list[Skipped]
    """Archives that could not be read to their end."""


def find_items(sources: Sequence[str | Path]) -> Found:
    """Search folders through all subfolders, and archives; a file that is named is taken whatever its suffix.

    Only names and places are held: some 300 bytes a photograph.

    Raises:
        DataError: a source that does not exist, or none that holds a photograph.
    """
    found = Found([], [])
    for source in map(Path, sources):
        if source.is_dir():
            for path in _walk(source):
                _add(path, str(path.relative_to(source)), found)
        elif source.exists():
            _add(source, source.name, found)
        else:
            raise DataError(f"{source}: no such file or folder")
    if not found.items and not found.skipped:
        names = ", ".join(str(source) for source in sources) or "no source"
        raise DataError(f"{names}: no photographs found; looked for {' '.join(sorted(SUFFIXES))} and .tar")
    found.items.sort(key=lambda item: item.name)
    return found


def _add(path: Path, name: str, found: Found) -> None:
    if path.suffix.lower() != ".tar":
        found.items.append(Item(printable(name), str(path), 0, -1))
        return
    try:
        for place in list_members(path):
            found.items.append(Item(printable(f"{name}/{place.name}"), str(path), place.offset, place.size))
    except ArchiveError as damage:
        found.skipped.append(Skipped(printable(name), "broken", printable(str(damage))))


def printable(name: str) -> str:
    """A name in which bytes that are no UTF-8 are written as \\xNN, so that it can be shown and kept."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_image_name(name) or (name.lower().endswith(".tar") and not name.startswith(".")):
                yield Path(parent) / name
