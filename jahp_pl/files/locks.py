"""Locks that give one process exclusive use of a folder or file, at most until the process ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jahp_pl.errors import WriteError, write_errors

RUN_LOCK = ".lock"
"""Name of the lock file in a run folder, held by the process that trains there."""
RUN_LOCK_VARIABLE = "JAHP_RUN_LOCK"
"""Environment variable with the descriptor of an open file that already holds the lock of the run folder."""
_open_locks: set[int] = set()
"""Descriptors of the locks that this process holds."""


def try_lock(file: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder; the system releases the lock when the process ends, however it ends.

    On Windows, nothing is locked.

    Args:
        file: descriptor of the file or folder.
        wait: wait for another process that holds the lock.

    Returns:
        False if another process holds the lock. True if this process holds it now, or if `wait` is not set and the file
        system does not support locks, which is true of some network file systems.

    Raises:
        OSError: if the disk fails, or if `wait` is set and there are no locks.
    """
    if sys.platform == "win32":  # has no fcntl
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if wait or error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
            raise
    return True


@contextmanager
def hold_lock(lock: Path, error_if_held: str | None = None, path_in_errors: Path | None = None) -> Iterator[int]:
    """Hold the lock of a file during the block, see `try_lock`. The file stays.

    Args:
        lock: lock file; created with its folder if missing.
        error_if_held: message of the error if another process holds the lock; None waits for that process instead.
        path_in_errors: path to name in errors about the lock file: the output that it protects; None for `lock`.

    Yields:
        Descriptor of the lock file. A started process that inherits it also holds the lock, until both have ended. A
        forked process, such as a data loading worker, closes it, so as not to keep the lock of a killed parent.

    Raises:
        WriteError: if another process holds the lock and `error_if_held` is given, or the lock file cannot be created.
    """
    path_in_errors = path_in_errors or lock
    with write_errors(path_in_errors):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    with _closed_after(file):
        with write_errors(path_in_errors):
            if not try_lock(file, wait=error_if_held is None):
                raise WriteError(error_if_held)
        yield file


@contextmanager
def _closed_after(file: int) -> Iterator[None]:
    """Close a file after the block, and in every process that is forked during it."""
    _open_locks.add(file)
    try:
        yield
    finally:
        _open_locks.discard(file)
        os.close(file)


@contextmanager
def training_in(run_dir: Path) -> Iterator[None]:
    """Let only this process train in a run folder during the block; if the folder is empty afterwards, remove it.

    A sweep passes its lock on to the training that it starts.

    Raises:
        WriteError: if another process trains there.
    """
    lock, inherited = run_dir / RUN_LOCK, os.environ.get(RUN_LOCK_VARIABLE, "")
    if inherited.isdecimal() and _holds(int(inherited), lock):
        _open_locks.add(int(inherited))
        yield
        return
    error_if_held = f"{run_dir}: another process is training there; wait for it, end it, or choose another name=..."
    new = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    with _removable_lock(lock, error_if_held, run_dir):
        try:
            yield
        finally:
            with suppress(OSError):
                if [path.name for path in run_dir.iterdir()] == [RUN_LOCK]:
                    _remove(lock)
                    for folder in new:
                        folder.rmdir()


@contextmanager
def in_use(folder: Path) -> Iterator[bool]:
    """Mark a new temporary folder as in use, so that `atomic.clear_leftovers` keeps it.

    Yields:
        False if another process took the folder for a leftover before it was marked, and removes it.
    """
    if sys.platform == "win32":  # cannot open folders
        yield True
        return
    try:
        file = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    with _closed_after(file):
        yield try_lock(file) and _holds(file, folder)


def _holds(file: int, lock: Path) -> bool:
    """Check whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), lock.stat())
    except OSError:
        return False


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let only this process write `path` during the block, using a lock file beside it that is removed afterwards.

    Raises:
        WriteError: if another process is writing `path`, or the lock file cannot be created.
    """
    lock = path.with_name(f".{path.name}.lock")
    error_if_held = f"{path}: another process is writing it; wait for it, or choose another place"
    with _removable_lock(lock, error_if_held, path):
        try:
            yield
        finally:
            _remove(lock)


@contextmanager
def _removable_lock(lock: Path, error_if_held: str, path_in_errors: Path) -> Iterator[None]:
    """Hold the lock of a file that its holders may remove; arguments and errors as for `hold_lock`."""
    is_done = False
    while not is_done:
        with hold_lock(lock, error_if_held, path_in_errors) as file:
            # The previous holder may have removed the file that this process waited for; others would create a new one.
            if is_done := _holds(file, lock):
                yield


def _remove(lock: Path) -> None:
    if sys.platform != "win32":  # where open files cannot be removed
        lock.unlink(missing_ok=True)


def _drop_locks() -> None:
    """Close, in a forked child, the locks that only its parent holds."""
    while _open_locks:
        os.close(_open_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_locks)
