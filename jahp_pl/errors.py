"""Errors that this package raises deliberately, and one-line descriptions of errors from the operating system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jahp_pl.text import shortened

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


class JahpError(Exception):
    """An error that the caller can act on; its message is one line that says what was found and what to do.

    Every subclass also derives from the built-in type that fits (`ValueError`, `OSError`, ...). Any other exception
    from the package is a bug, or an `OSError` from reading an input file.

    Args:
        message: the message; line breaks, which file names may contain, become spaces.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))


class WriteError(JahpError, OSError):
    """A file that could not be written; the message is one line that names it and the remedy."""


class StandardOutputError(JahpError, OSError):
    """A failed write to standard output that is still being read; the message is one line."""


class MemoryShortageError(JahpError, MemoryError):
    """Memory that this package or a library could not allocate; the message is one line."""


_SHORTAGES = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to map seg",
)
"""Phrases, in lower case, with which torch, onnxruntime and the dynamic linker report that memory ran out."""


def is_memory_shortage(error: Exception) -> bool:
    """Check whether an error from any library means that memory could not be allocated."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _SHORTAGES)


@contextmanager
def memory_errors(name: str = "") -> Iterator[None]:
    """Turn any error in the block that means a lack of memory into one with a one-line message.

    Args:
        name: the input being processed, for the message; empty for none in particular.

    Raises:
        MemoryShortageError: in place of the libraries' own errors.
    """
    try:
        yield
    except JahpError:
        raise
    except Exception as error:
        if not is_memory_shortage(error):
            raise
        raise MemoryShortageError(
            f"{name}{': ' * bool(name)}not enough memory ({shortened(first_line(error), 200)}); free some, or use "
            "smaller images or batches, fewer threads, or a lower --memory"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; the name of its type if it has no message.

    For an OSError, return only the reason, without its number and path.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def describe_error(error: Exception, name: str = "") -> str:
    """Describe an error in one line; for an OSError about an input, name the input and a remedy.

    Args:
        error: the error.
        name: name of the input; by default, the path in the error.
    """
    if isinstance(error, JahpError) or not isinstance(error, OSError) or not error.strerror:
        return str(error).strip() or type(error).__name__
    if not name and error.filename is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return f"{name}{': ' * bool(name)}cannot be used ({error.strerror}); {_input_remedy(error)}"


@contextmanager
def add_path_to_errors(path: Path) -> Iterator[None]:
    """Add a path to OSErrors in the block that carry none, such as those of reading an open file."""
    try:
        yield
    except OSError as error:
        if error.strerror and error.filename is None:
            error.filename = str(path)
        raise


def _input_remedy(error: OSError) -> str:
    """Suggest what to do about an OSError that concerns an input."""
    if error.errno in _FULL:
        return "free some space"
    if error.errno in _FORBIDDEN:
        return "allow access to it"
    if error.errno == errno.ENAMETOOLONG:
        return "give it a shorter name"
    if error.errno in _TOO_MANY_OPEN:
        return "raise the limit of open files, e.g. with ulimit -n"
    return "check the path"


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn any OSError in the block into a `WriteError` about `path`.

    Raises:
        WriteError: in place of any OSError of the block.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}); the previous content is kept. "
            f"{_remedy(error)} or choose another place"
        ) from error


def _remedy(error: OSError) -> str:
    """Suggest what to do about a failed write, other than choosing another place."""
    if error.errno in _FULL:
        return "Free some space"
    if error.errno in _FORBIDDEN:
        return "Allow writing there"
    if error.errno == errno.ENAMETOOLONG:
        return "Give it a shorter name"
    if error.errno in _IN_THE_WAY:
        return "Move the file or folder of that name away"
    return "Check the disk"
