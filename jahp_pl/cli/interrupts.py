"""Ends a command on an interrupt (Ctrl+C), whatever it is doing, with one line and status 130."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def interrupts_in_one_line(*, until_exit: bool) -> Iterator[None]:
    """Let an interrupt during the block end the process with one line; during an import, end it at once.

    An exception raised during an import would be swallowed by numpy, which then stays broken, and would abort torch.

    Args:
        until_exit: whether the process ends after the block; if so, interrupts end it silently from then on, because
            Python would show a traceback of its own end.

    Raises:
        SystemExit: with status 130, if an interrupt arrived at another moment and the block did not catch it.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    is_ours = is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        _report()
        sys.exit(128 + signal.SIGINT)
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL if until_exit else signal.default_int_handler)


def exit_if_importing(number: int, frame: FrameType | None) -> None:
    """End the process with the status of a signal if it arrived during an import, according to its stack frame."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if number == signal.SIGINT:
                _report()
            os._exit(128 + number)
        frame = frame.f_back


def _interrupt(number: int, frame: FrameType | None) -> None:
    exit_if_importing(number, frame)
    raise KeyboardInterrupt


def _report() -> None:
    with suppress(OSError):  # standard error may be closed
        os.write(2, b"jahp: interrupted\n")
