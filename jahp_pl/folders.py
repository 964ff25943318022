"""Folders that are either complete or not there, each with one writer at a time.

Guarantees: a kill or a power cut at any moment leaves the folder that was there before or the new one, under its name;
where the system cannot exchange two names in one step, `recover` brings the old one back at the next start.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from jahp_pl.files import clear_leftovers, sync_folder, temporary_name, write_atomically, write_errors
from jahp_pl.locks import exclusive, in_use

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and vanishes otherwise.

    Who puts files into it syncs them.

    Raises:
        WriteError: another process writes this folder, or it cannot be written.
    """
    with exclusive(folder):
        with write_errors(folder):
            recover(folder)
            clear_leftovers(folder.parent)
            new = temporary_name(folder.parent)
            new.mkdir()
        try:
            with in_use(new):
                yield new
                with write_errors(folder):
                    sync_folder(new)
                    _put(new, folder)
                    sync_folder(folder.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)  # after an exchange, what was there before


def replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put a folder with these files in place of `folder`, at once or not at all.

    Raises:
        WriteError: as `new_folder`.
    """
    with new_folder(folder) as new:
        for name, data in contents.items():
            write_atomically(new / name, data)


def bring_back(folder: Path) -> None:
    """`recover` for those who read: does nothing where the folder is there, is being written, or cannot be renamed."""
    with suppress(OSError):
        if not folder.exists() and any(_is_former(path.name, folder.name) for path in folder.parent.iterdir()):
            with exclusive(folder):
                recover(folder)


def recover(folder: Path) -> None:
    """Give a folder its name back that a kill between two renames took, and remove what such a kill left behind.

    Raises:
        OSError: it cannot be renamed.
    """
    if not folder.parent.is_dir():
        return
    former = [path for path in folder.parent.iterdir() if _is_former(path.name, folder.name)]
    for path in sorted(former, key=lambda path: path.stat().st_mtime, reverse=True):
        if folder.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(folder)


def _is_former(name: str, of: str) -> bool:
    middle = name.removeprefix(f".{of}.").removesuffix(".old")
    return name == f".{of}.{middle}.old" and middle.isalnum()


def _put(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        return
    if _exchange(new, folder):
        return
    former = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.old")
    folder.rename(former)
    try:
        new.rename(folder)
    except BaseException:
        former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot.

    Raises:
        OSError: they cannot be renamed.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(b))
