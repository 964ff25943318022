"""Folders and files that one process has for itself, for as long as it lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jahp_pl.files import WriteError, try_lock, write_errors

RUN_LOCK = ".lock"
"""In a run folder: held by whoever trains there."""
INHERITED = "JAHP_RUN_LOCK"
"""Environment variable with the number of an open file that holds the lock of the run folder already."""
_open_locks: set[int] = set()


@contextmanager
def held(lock: Path, complaint: str) -> Iterator[int]:
    """Hold the lock that a file stands for; the system takes it back from a process that dies, however it dies.

    The file stays behind. On Windows nothing is locked.

    Args:
        lock: is made if it is not there, its folder too.
        complaint: what to say where somebody else holds it.

    Yields:
        The open file. A process that it is passed to holds the lock as well, until both have ended; a forked one, like
        a worker that loads data, does not: it must not keep the lock of a parent that was killed.

    Raises:
        WriteError: somebody else holds it, or it cannot be made.
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
    """Be the only process that trains in a run folder. A sweep passes the lock on to the training that it starts.

    Raises:
        WriteError: another process trains there.
    """
    lock, inherited = run_dir / RUN_LOCK, os.environ.get(INHERITED, "")
    if inherited.isdecimal() and _holds(int(inherited), lock):
        _open_locks.add(int(inherited))
        yield
        return
    complaint = f"{run_dir}: another process is training there; wait for it, end it, or choose another name=..."
    with held(lock, complaint):
        yield


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Show others that a temporary folder is no leftover (`files.clear_leftovers`)."""
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
    """Be the only process that writes `path` for as long as the block takes, by a lock beside it that is removed.

    Raises:
        WriteError: another process is in such a block, or nothing can be written there.
    """
    lock = path.with_name(f".{path.name}.lock")
    complaint = f"{path}: another process is writing it; wait for it, or choose another place"
    is_done = False
    while not is_done:
        with held(lock, complaint) as file:
            # Who had it before may have removed the file that this process waits at: then others make it anew.
            if is_done := _holds(file, lock):
                try:
                    yield
                finally:
                    _remove(lock)


def _remove(lock: Path) -> None:
    if sys.platform != "win32":  # where what is open cannot be removed
        lock.unlink(missing_ok=True)


def _drop_locks() -> None:
    """In a forked child: close what only its parent holds."""
    while _open_locks:
        os.close(_open_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_locks)
