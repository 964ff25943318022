"""Writes folders that are complete or absent, each with one writer at a time.

Guarantees: a kill or a power cut at any moment leaves the old folder or the new one under its name. If the system
cannot exchange two names in one step, `recover` restores the old one at the next start.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from jahp_pl.errors import WriteError, write_errors
from jahp_pl.files.atomic import clear_leftovers, resolved, sync_folder, temporary_name, write_synced
from jahp_pl.files.locks import exclusive, in_use

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` if the block succeeds, and is removed otherwise.

    The caller syncs the files that it puts there. If `folder` is a link, the folder that it leads to is replaced.

    Raises:
        WriteError: if another process writes this folder, or it cannot be written.
    """
    folder = resolved(folder)
    if os.path.ismount(folder):
        raise WriteError(f"{folder}: is a mount point, which cannot be replaced; name a folder inside it")
    with exclusive(folder):
        with write_errors(folder):
            recover(folder)
            clear_leftovers(folder.parent)
        with _temporary_beside(folder) as new:
            yield new
            with write_errors(folder):
                sync_folder(new)
                _move_into_place(new, folder)
                sync_folder(folder.parent)


@contextmanager
def _temporary_beside(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside another one; what has its name after the block is removed.

    Raises:
        WriteError: if it cannot be created.
    """
    is_ours = False
    while not is_ours:
        with write_errors(folder):
            new = temporary_name(folder.parent)
            new.mkdir()
        with in_use(new) as is_ours:
            if is_ours:
                try:
                    yield new
                finally:
                    shutil.rmtree(new, ignore_errors=True)  # after an exchange, this is the old folder


def replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace `folder` by one with these files, completely or not at all.

    Raises:
        WriteError: see `new_folder`.
    """
    with new_folder(folder) as new, write_errors(folder):
        for name, data in contents.items():
            write_synced(new / name, data)


def recover_if_missing(folder: Path) -> None:
    """Call `recover` before reading; do nothing if the folder exists, is being written, or cannot be renamed."""
    with suppress(OSError):
        if not folder.exists() and any(_is_former(path.name, folder.name) for path in folder.parent.iterdir()):
            with exclusive(folder):
                recover(folder)


def recover(folder: Path) -> None:
    """Restore the name of a folder after a kill between two renames, and remove leftovers of such a kill.

    Raises:
        OSError: if the folder cannot be renamed.
    """
    if not folder.parent.is_dir():
        return
    former = [path for path in folder.parent.iterdir() if _is_former(path.name, folder.name)]
    for path in sorted(former, key=lambda path: path.stat().st_mtime, reverse=True):
        if folder.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(folder)


def _is_former(name: str, folder_name: str) -> bool:
    """Check whether a name is that of an old folder which `_move_into_place` is replacing."""
    return re.fullmatch(rf"\.{re.escape(folder_name)}\.[0-9a-f]{{16}}\.old", name) is not None


def _move_into_place(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; an old folder of that name is removed, or is called `new` afterwards."""
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
    """Exchange two names in one step; return False if the system or the file system cannot.

    Raises:
        OSError: if the names cannot be exchanged.
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
