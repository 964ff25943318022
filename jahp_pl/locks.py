"""Locks that give one process exclusive use of a folder or file until it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jahp_pl.files import WriteError, try_lock, write_errors

RUN_LOCK = ".lock"
"""Name of the lock file in a run folder, held by the process that trains there."""
INHERITED = "JAHP_RUN_LOCK"
"""Environment variable with the descriptor of an open file that already holds the lock of the run folder."""
_open_locks: set[int] = set()


@contextmanager
def hold_lock(lock: Path, complaint: str) -> Iterator[int]:
    """Hold the lock of a file; the system releases it when the process ends, however it ends.

    The file stays. On Windows nothing is locked.

    Args:
        lock: lock file; created with its folder if missing.
        complaint: error message if another process holds it.

    Yields:
        The open file. A process that inherits it holds the lock as well, until both have ended. A forked process, such
            as a data loading worker, does not: it must not keep the lock of a parent that was killed.

    Raises:
        WriteError: if another process holds the lock, or the file cannot be created.
    """
    with write_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _open_locks.add(file)
        with write_errors(lock):
            if not try_lock(file):
                raise WriteError(complaint)
        yield file
    finally:
        _open_locks.discard(file)
        os.close(file)


@contextmanager
def training_in(run_dir: Path) -> Iterator[None]:
    """Be the only process that trains in a run folder. A sweep passes its lock on to the training that it starts.

    Raises:
        WriteError: if another process trains there.
    """
    lock, inherited = run_dir / RUN_LOCK, os.environ.get(INHERITED, "")
    if inherited.isdecimal() and _holds(int(inherited), lock):
        _open_locks.add(int(inherited))
        yield
        return
    complaint = f"{run_dir}: another process is training there; wait for it, end it, or choose another name=..."
    with hold_lock(lock, complaint):
        yield


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Mark a temporary folder as in use, so that `files.clear_leftovers` keeps it."""
    if sys.platform == "win32":  # cannot open folders
        yield
        return
    file = os.open(folder, os.O_RDONLY)
    _open_locks.add(file)
    try:
        try_lock(file)
        yield
    finally:
        _open_locks.discard(file)
        os.close(file)


def _holds(file: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), lock.stat())
    except OSError:
        return False


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Be the only process that writes `path` during the block, by a lock file beside it that is removed afterwards.

    Raises:
        WriteError: if another process is in such a block, or nothing can be written there.
    """
    lock = path.with_name(f".{path.name}.lock")
    complaint = f"{path}: another process is writing it; wait for it, or choose another place"
    is_done = False
    while not is_done:
        with hold_lock(lock, complaint) as file:
            # The previous holder may have removed the file that this process waited for; others would create a new one.
            if is_done := _holds(file, lock):
                try:
                    yield
                finally:
                    _remove(lock)


def _remove(lock: Path) -> None:
    if sys.platform != "win32":  # where open files cannot be removed
        lock.unlink(missing_ok=True)


def _drop_locks() -> None:
    """Close, in a forked child, the locks that only its parent holds."""
    while _open_locks:
        os.close(_open_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_locks)
