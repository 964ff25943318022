"""Folders and files that one process has for itself, for as long as it lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jahp_pl.files import write_errors
from jahp_pl.sweeping import SweepError


@contextmanager
def held(path: Path, complaint: str) -> Iterator[int]:
    """Hold the lock that a file stands for; the system takes it back from a process that dies, however it dies.

    The file stays behind. On Windows nothing is locked.

    Args:
        path: is made if it is not there, its folder too.
        complaint: what to say where somebody else holds it.

    Yields:
        The open file. A process that inherits it holds the lock as well, until both have ended.

    Raises:
        SweepError: somebody else holds it.
        WriteError: it cannot be made.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with write_errors(path):
            _lock(file, complaint)
        yield file
    finally:
        os.close(file)


def _lock(file: int, complaint: str) -> None:
    if sys.platform == "win32":  # has no fcntl
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SweepError(complaint) from None
