"""Defines the base class of all errors that this package raises deliberately, and the error about failed writes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class JahpError(Exception):
    """An error that the caller can act on: its message is one line that says what was found and what to do.

    Every subclass also derives from the built-in type that fits (`ValueError`, `OSError`, ...). Any other exception
    from the package is a bug, or an `OSError` of an input file.
    """


class WriteError(JahpError, OSError):
    """A file that could not be written; the message is one line that names it and the remedy."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; the name of its type if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
