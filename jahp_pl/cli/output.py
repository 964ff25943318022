"""Prints the lines and progress bars of commands."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from jahp_pl.cli.job_plan import STREAM
from jahp_pl.errors import StandardOutputError
from jahp_pl.text import printable

if TYPE_CHECKING:
    from tqdm import tqdm

QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether --quiet was given, so that only errors are printed."""
LONG_EFFORT = 1
"""Smallest effort whose search shows its own progress bar."""


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print lines, with control characters escaped so that file names cannot control the terminal.

    With --quiet, lines are printed only if `file` is given, e.g. standard error.

    Raises:
        BrokenPipeError: if the reader has gone.
        StandardOutputError: if standard output cannot be written.
    """
    if QUIET.get() and file is None:
        return
    with stream_errors(file):
        print(*map(printable, lines), sep="\n", file=file)


def flush() -> None:
    """Write out everything that standard output has buffered.

    Raises:
        BrokenPipeError, StandardOutputError: as for `say`.
    """
    with stream_errors():
        sys.stdout.flush()


@contextmanager
def stream_errors(file: TextIO | None = None) -> Iterator[None]:
    """Name standard output in errors that the block raises; ignore a standard error that cannot be written to."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if file is not sys.stderr:
            reason = error.strerror or error
            raise StandardOutputError(f"standard output: cannot be written ({reason}); redirect it elsewhere") from None


def name_of(path: Path, direction: str = "input") -> str:
    """Return the name by which messages refer to a path."""
    return f"standard {direction}" if path == STREAM else str(path)


class NoBar:
    """Substitute for a tqdm bar that shows nothing, for a single file or if tqdm is not installed."""

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing, because nothing was drawn."""

    def update(self) -> None:
        """Do nothing."""

    def external_write_mode(self) -> NoBar:
        """Do nothing, because no bar is in the way of other output."""
        return self


def bar_of_files(command: str, total: int) -> tqdm[Any] | NoBar:
    """Create a progress bar for several files; nothing is shown for a single one, or without tqdm."""
    if total == 1 or importlib.util.find_spec("tqdm") is None:
        return NoBar()
    return bar(total=total, unit=" files", desc=command)


def bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """Create a progress bar, which shows on a terminal unless --quiet was given."""
    from tqdm import tqdm

    return tqdm(iterable, leave=False, disable=options.pop("disable", None) or QUIET.get() or None, **options)


@contextmanager
def search_bar(effort: int, name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar for the steps of an encoder's search if it takes long.

    Yields a function to call with the number of steps done and the total number; None for a short search.

    Args:
        effort: effort of the encoder.
        name: name of the image.
    """
    if effort < LONG_EFFORT:
        yield None
        return
    with bar(unit=" steps", desc=name) as steps:

        def progress(done: int, total: int) -> None:
            steps.total = total
            steps.update(done - steps.n)

        yield progress
