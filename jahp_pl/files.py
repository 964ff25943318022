"""Files that are either complete or not there: a full disk or a kill at any moment leaves the previous version."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from jahp_pl.text import shortened

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
MAX_STEM_BYTES = 200
"""Of a file's name in that of its temporary: file systems allow 255 bytes in all."""
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class WriteError(OSError):
    """A file that could not be written; the message is one line that names it and the remedy."""


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside `path`; when the block ends well it is on the disk and takes the name in one step.

    Raises:
        WriteError: the file cannot be written (disk full, no permission); `path` is as it was.
    """
    temporary = _temporary(path)
    try:
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path`.

    Raises:
        WriteError: as `atomic_writer`.
    """
    with atomic_writer(path) as file:
        file.write(data)


def link_atomically(source: Path, path: Path) -> None:
    """Let `path` be what `source` is now: a second name where the file system has hard links, else a copy.

    Files written by this module are replaced and never changed in place, so the two do not follow each other.

    Raises:
        WriteError: as `atomic_writer`.
    """
    temporary = _temporary(path)
    with write_errors(path):
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(source)
        except OSError:
            pass
        else:
            temporary.replace(path)
            temporary.unlink(missing_ok=True)  # replacing a name of the same file does nothing
            return
    with atomic_writer(path) as copy, source.open("rb") as original:
        shutil.copyfileobj(original, copy)


def replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put a folder with these files in place of `folder`, at once or not at all.

    Raises:
        WriteError: as `atomic_writer`.
    """
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}") for kind in ("part", "old"))
    try:
        for name, data in contents.items():
            write_atomically(new / name, data)
        with write_errors(folder):
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    finally:
        if old.exists() and not folder.exists():  # interrupted between the two
            old.rename(folder)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def clear_leftovers(folder: Path) -> int:
    """Remove what killed processes had begun to write below a folder in which nobody else writes; how many files."""
    leftovers = list(folder.rglob(".*.[0-9]*.part"))
    for path in leftovers:
        with suppress(OSError):
            path.unlink()
    return len(leftovers)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{shortened(path.name, MAX_STEM_BYTES)}.{os.getpid()}.part")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a `WriteError` about `path`."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept. "
            f"{_remedy(error)} or choose another place"
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "Free some space"
    if error.errno in _FORBIDDEN:
        return "Allow writing there"
    if error.errno == errno.ENAMETOOLONG:
        return "Give it a shorter name"
    if error.errno in _IN_THE_WAY:
        return "Move away what has its name or its folder's"
    return "Look after the disk"
