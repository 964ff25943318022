"""The process of a command: its standard streams, signals and threads."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jahp_pl.cli.errors import CommandError

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables that determine how OpenMP's threads wait."""


def open_streams() -> None:
    """Make output safe: escape what the encoding cannot write, and discard output to closed streams.

    Otherwise, a closed standard descriptor would be reused by the next file that is opened.
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
    """Refuse to run in a folder that was deleted, where torch cannot load its libraries and ends the process.

    Raises:
        CommandError: if it was deleted.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise CommandError("the working folder was deleted; change to another one with cd") from None


def wait_passively() -> None:
    """Let torch's threads sleep while they wait for each other, unless the environment sets how they wait.

    By default they spin. If other programs use the cores too, a spinning thread uses up time that the thread it waits
    for needs, and decoding takes five times the CPU time (docs/guide.md). OpenMP reads the environment when torch is
    imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@contextmanager
def imports_uncollected() -> Iterator[None]:
    """Suspend garbage collection in a block that imports modules, and exempt the resulting objects from later ones.

    Importing torch creates hundreds of thousands of objects and no garbage, but the repeated collections, and one more
    at exit, would take half as long as the import.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def exit_uncollected() -> None:
    """Let the process end without a last garbage collection; the system frees its memory anyway."""
    atexit.register(gc.freeze)


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like an error, so that partial output is removed.

    The status is 128 plus the signal, as in shells.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for name in names if signal.getsignal(number := getattr(signal, name)) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        numbers = []

    def end(number: int, frame: FrameType | None) -> None:
        _exit_if_importing(number, frame)
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def interrupts_during_imports() -> Iterator[None]:
    """Let an interrupt end the process at once while modules are imported in the block.

    numpy swallows an exception that is raised there and stays broken, and torch aborts the process.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        _exit_if_importing(number, frame)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit_if_importing(number: int, frame: FrameType | None) -> None:
    """End the process with the status of a signal if it arrived during an import; `frame` is where."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if number == signal.SIGINT:
                os.write(2, b"jahp: interrupted\n")
            os._exit(128 + number)
        frame = frame.f_back
