"""Reads image files from tar archives, and reports every kind of damage.

Python's `tarfile` takes a damaged header for the end of the archive, and a webdataset pipeline then silently loses
samples. Here only the end mark ends an archive; anything else is an error.
"""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Self

from jahp_pl.errors import JahpError, first_line
from jahp_pl.images.io import SUFFIXES

MAX_PHOTO_BYTES = 2**29
"""Maximum size of an image file, which a worker reads into memory as a whole; larger ones are refused."""
MAX_SHARD_BYTES = 2**36
"""Maximum size of an archive that is read as a stream, decompressed, and of a download without an index."""
_MAX_HEADER_BYTES = 2**18
"""Maximum size of a long name, or of all global extended headers of an archive."""
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
_READ_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError)


class ArchiveError(JahpError):
    """An archive that cannot be read further; the message says where. Everything before that place is intact."""


class Member(NamedTuple):
    """One image file inside an archive."""

    name: str
    data: bytes


class MemberPosition(NamedTuple):
    """Position of an image file inside an uncompressed archive."""

    name: str
    offset: int
    """Bytes from the start of the archive."""
    size: int
    """Bytes."""


def stream_members(file: IO[bytes]) -> Iterator[Member]:
    """Read the image files of an archive (compressed or not) in one pass; `file` need not be seekable.

    Raises:
        ArchiveError: after the last intact member.
    """
    name = "its start"
    try:
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_StrictHeader) as tar:
            for info in _images(tar, MAX_SHARD_BYTES):
                name = info.name
                if info.size > MAX_PHOTO_BYTES:
                    raise tarfile.ReadError(f"has {info.size} bytes, more than the {MAX_PHOTO_BYTES} of a photograph")
                content = tar.extractfile(info)
                assert content is not None
                yield Member(name, content.read())
    except _READ_ERRORS as error:
        raise ArchiveError(f"damaged at or after {name} ({first_line(error)})") from None


def list_members(path: Path) -> Iterator[MemberPosition]:
    """Locate the image files of an uncompressed archive on disk from its headers alone.

    Raises:
        ArchiveError: after the last intact header, or if the archive is compressed.
    """
    name = "its start"
    try:
        if not path.is_file():
            raise tarfile.ReadError("not a regular file")
        with tarfile.open(path, mode="r:", tarinfo=_StrictHeader) as tar:
            for info in _images(tar):
                name = info.name
                yield MemberPosition(name, info.offset_data, info.size)
    except _READ_ERRORS as error:
        raise ArchiveError(f"damaged at or after {name}, or compressed ({first_line(error)})") from None


def is_image_name(name: str) -> bool:
    """Check whether a path has the suffix of an image, and neither the file nor any folder in the path is hidden."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


class _StrictHeader(tarfile.TarInfo):
    """A header whose damage is an error, not the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        is_extension = header.type in _EXTENSIONS
        if header.size < 0 or (is_extension and header.size > _MAX_HEADER_BYTES):
            raise tarfile.InvalidHeaderError(f"a header declares a size of {header.size} bytes")  # type: ignore[attr-defined]
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tar)
        except RecursionError:  # tarfile reads the header that a long name belongs to by recursion
            raise tarfile.ReadError("has too many long names in a row") from None
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end mark, a block of zeros; tarfile does not export it
                raise
            raise tarfile.ReadError(str(error)) from None


def _images(tar: tarfile.TarFile, max_bytes: float = math.inf) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of the image files in an archive of at most `max_bytes` bytes."""
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # otherwise they accumulate
        if info.offset_data + info.size > max_bytes:  # before the rest of a large file is read to be skipped
            raise tarfile.ReadError(f"exceeds {max_bytes} bytes at {info.name}")
        if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > _MAX_HEADER_BYTES:
            raise tarfile.ReadError("its extended headers are too long")
        if info.isreg() and is_image_name(info.name):
            if info.issparse():
                raise tarfile.ReadError(f"{info.name} is a sparse file, which a photograph cannot be")
            yield info
