"""Defines the base class of all errors that this package raises deliberately, and the error about failed writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


class JahpError(Exception):
    """An error that the caller can act on: its message is one line that says what was found and what to do.

    Every subclass also derives from the built-in type that fits (`ValueError`, `OSError`, ...). Any other exception
    from the package is a bug, or an `OSError` of an input file.

    Args:
        message: the message; line breaks in it, as names from files may have, become spaces.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))


class WriteError(JahpError, OSError):
    """A file that could not be written; the message is one line that names it and the remedy."""


class StandardOutputError(JahpError, OSError):
    """Standard output that cannot be written, although its reader is there; the message is one line."""


class MemoryShortageError(JahpError, MemoryError):
    """Memory that could not be allocated, by whichever library; the message is one line."""


_SHORTAGES = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to map seg",
)
"""Words in the messages of torch, onnxruntime and the dynamic linker if memory cannot be allocated."""


def is_memory_shortage(error: Exception) -> bool:
    """Check whether an error, of any library, says that memory could not be allocated."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _SHORTAGES)


@contextmanager
def memory_errors(name: str = "") -> Iterator[None]:
    """Report in one line if memory cannot be allocated in the block.

    Args:
        name: input of the block; empty for none in particular.

    Raises:
        MemoryShortageError: in place of the errors of libraries.
    """
    try:
        yield
    except JahpError:
        raise
    except Exception as error:
        if not is_memory_shortage(error):
            raise
        raise MemoryShortageError(
            f"{name}{': ' * bool(name)}not enough memory ({first_line(error)[:200]}); free some, or work on less at a "
            "time: smaller images or batches, fewer threads, a lower --memory"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; the name of its type if it has no message.

    An error of the system becomes its reason alone, without number and path.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def describe_error(error: Exception, name: str = "") -> str:
    """Describe an error in one line; one of the system about an input becomes a sentence that names it and the remedy.

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
def named_in_errors(path: Path) -> Iterator[None]:
    """Add a path to errors of the system in the block that lack one, as errors while reading do."""
    try:
        yield
    except OSError as error:
        if error.strerror and error.filename is None:
            error.filename = str(path)
        raise


def _input_remedy(error: OSError) -> str:
    """Say what to do about an error of the system about an input."""
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
    """Report an OSError of the block as one about `path`.

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
    """Say what to do about an error, apart from choosing another place."""
    if error.errno in _FULL:
        return "Free some space"
    if error.errno in _FORBIDDEN:
        return "Allow writing there"
    if error.errno == errno.ENAMETOOLONG:
        return "Give it a shorter name"
    if error.errno in _IN_THE_WAY:
        return "Move the file or folder of that name away"
    return "Check the disk"
