"""Reading tar archives without believing them.

Python's `tarfile` takes a damaged header for the end of the archive, and a webdataset pipeline then loses samples in
silence. Here only the end mark ends an archive; everything else is damage, and is reported.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from jahp_pl.data.images import SUFFIXES


class ArchiveError(Exception):
    """The archive cannot be read further; the message says where. What came before is sound."""


class Member(NamedTuple):
    """One image file inside an archive."""

    name: str
    data: bytes


class Place(NamedTuple):
    """Where an image file lies inside an uncompressed archive."""

    name: str
    offset: int
    """Bytes from the start of the archive."""
    size: int
    """Bytes."""


def stream_members(file: IO[bytes]) -> Iterator[Member]:
    """Read the image files of an archive (compressed or not) in one pass; `file` need not be seekable.

    Raises:
        ArchiveError: after the last sound member.
    """
    name = "its start"
    try:
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_StrictHeader) as tar:
            for info in _images(tar):
                name = info.name
                content = tar.extractfile(info)
                assert content is not None
                yield Member(name, content.read())
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ArchiveError(f"damaged at or after {name} ({_first_line(error)})") from None


def list_members(path: Path) -> Iterator[Place]:
    """Find the image files of an uncompressed archive on disk, by its headers alone.

    Raises:
        ArchiveError: after the last sound header; or the archive is compressed.
    """
    name = "its start"
    try:
        with tarfile.open(path, mode="r:", tarinfo=_StrictHeader) as tar:
            for info in _images(tar):
                name = info.name
                yield Place(name, info.offset_data, info.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ArchiveError(f"damaged at or after {name}, or compressed ({_first_line(error)})") from None


def is_image_name(name: str) -> bool:
    """Whether a path is taken for a photograph: by its suffix, and neither it nor a folder in it is hidden."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


class _StrictHeader(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end mark, a block of zeros; tarfile does not export it
                raise
            raise tarfile.ReadError(str(error)) from None


def _images(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # or they pile up
        if info.isreg() and is_image_name(info.name):
            yield info


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
