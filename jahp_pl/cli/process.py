"""Sets up the process of a command: standard streams, signals (except interrupts, see `interrupts`) and threads."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.interrupts import exit_if_importing

WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables that determine how OpenMP's threads wait."""


def open_streams() -> None:
    """Make output safe: escape characters that the encoding lacks, and discard output to closed streams.

    Without this, the next file to be opened would reuse a closed standard descriptor.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: PTH123, SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  open until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_working_folder() -> None:
    """Refuse to run in a deleted folder, where torch fails to load its libraries and kills the process.

    Raises:
        CommandError: if the working folder was deleted.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise CommandError("the working folder was deleted; change to another one with cd") from None


def set_passive_waiting() -> None:
    """Let torch's threads sleep while they wait for each other, unless the environment sets how they wait.

    By default they spin. If other programs use the cores too, a spinning thread takes time away from the thread that it
    waits for, and decoding takes five times as long (docs/library.md). Call this before torch is imported, which is
    when OpenMP reads the environment.
    """
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@contextmanager
def pillow_warnings_hidden() -> Iterator[None]:
    """Hide Pillow's warnings about metadata: a damaged image may cause one of two lines for each of its tags.

    Damage that affects the pixels is found by this package itself, and reported in one line.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Suspend garbage collection in a block that imports modules, and exempt its objects from later collections.

    Importing torch creates hundreds of thousands of objects and no garbage. Repeated collections during the import, and
    one more at exit, would take half as long as the import itself.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def skip_collection_at_exit() -> None:
    """Let the process exit without a final garbage collection; the system frees its memory anyway."""
    atexit.register(gc.freeze)


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception would, so that partial output is removed.

    The exit status is 128 plus the signal number, as in shells.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for name in names if signal.getsignal(number := getattr(signal, name)) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        numbers = []

    def end(number: int, frame: FrameType | None) -> None:
        exit_if_importing(number, frame)
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
