"""Writes files that are complete or absent: a full disk or a kill at any moment leaves the previous version."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from jahp_pl.errors import WriteError, write_errors
from jahp_pl.files.locks import try_lock

_TEMPORARY_NAME = re.compile(r"\.jahp-[0-9a-f]{16}\.part|\..*\.[0-9]+\.part")
"""Names of temporary files; version 0.1 used the second form."""


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside `path`, which replaces `path` in one step once the block succeeds and the data is on disk.

    Raises:
        WriteError: if the file cannot be written (disk full, no permission); `path` is unchanged.
    """
    with write_errors(path):
        _check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, file = _create(path.parent)
    try:
        with write_errors(path), file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` in one step.

    Raises:
        WriteError: see `atomic_writer`.
    """
    with atomic_writer(path) as file:
        file.write(data)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file in place and sync it, for folders that others see only once they are complete.

    Raises:
        OSError: if the file cannot be written.
    """
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Mapping[str, Any], indent: int = 1) -> None:
    """Replace the content of `path` with JSON in one step; each level of nesting is indented by `indent` spaces.

    Raises:
        WriteError: see `atomic_writer`.
    """
    write_atomically(path, f"{json.dumps(content, indent=indent)}\n".encode())


def link_atomically(source: Path, path: Path) -> None:
    """Make `path` a snapshot of `source`: a hard link if the file system has them, otherwise a copy.

    This module replaces files and never changes them in place, so later writes to one do not affect the other.

    Raises:
        WriteError: see `atomic_writer`.
    """
    temporary = temporary_name(path.parent)
    with write_errors(path):
        try:
            temporary.hardlink_to(source)
        except OSError:
            pass
        else:
            temporary.replace(path)
            temporary.unlink(missing_ok=True)  # replacing a link to the same file is a no-op
            sync_folder(path.parent)
            return
    with atomic_writer(path) as copy, source.open("rb") as original:
        shutil.copyfileobj(original, copy)


def resolved(path: str | Path) -> Path:
    """Return a path without symbolic links, like `Path.resolve`, but without its RuntimeError for a loop of links."""
    return Path(os.path.realpath(path))


def temporary_name(folder: Path) -> Path:
    """Return a name in this folder that no other process uses, even in another container or on another machine."""
    return folder / f".jahp-{secrets.token_hex(8)}.part"


def clear_leftovers(folder: Path, *, alone: bool = False) -> int:
    """Remove temporary files and folders of processes that have ended, and return how many there were.

    Args:
        folder: folder to search.
        alone: whether no other process writes there; if so, files that seem to be in use are removed too, and
            subfolders are searched.
    """
    paths = (folder.rglob if alone else folder.glob)(".*.part")
    found = [path for path in paths if _TEMPORARY_NAME.fullmatch(path.name)]
    return sum(map(_remove if alone else _remove_if_abandoned, found))


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that its names survive a power cut if the file system supports that.

    Raises:
        OSError: if the disk fails.
    """
    if sys.platform == "win32":  # cannot open folders
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable but not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _check_regular(path: Path) -> None:
    """Refuse to replace a device, a pipe or a socket, such as /dev/null.

    Raises:
        WriteError: if the path is one of these.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise WriteError(f"{path}: is not a regular file; choose another place, or redirect standard output to it")


def _create(folder: Path) -> tuple[Path, BinaryIO]:
    """Create a file that stays locked while it is open, which marks it as being written."""
    while True:
        path = temporary_name(folder)
        file = path.open("xb")
        if try_lock(file.fileno()) and path.exists():  # otherwise another process removed it as a leftover
            return path, file
        file.close()


def _remove(path: Path) -> bool:
    """Remove a temporary file or folder, if possible, and return True."""
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return True


def _remove_if_abandoned(path: Path) -> bool:
    """Remove a temporary file or folder if the process that wrote it has ended, and return whether it has.

    The end of a process releases its lock. The lock is held during the removal, so that a process that is only just
    creating the file notices.
    """
    if sys.platform == "win32":  # there is no way to know
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return try_lock(descriptor) and _remove(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
