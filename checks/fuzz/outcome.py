"""The messages that a worker process sends."""

from __future__ import annotations

from typing import NamedTuple


class Ready(NamedTuple):
    """The worker accepts cases."""

    fingerprints: tuple[str, ...]
    """Fingerprints of the subjects' codecs, in hexadecimal."""


class Outcome(NamedTuple):
    """Result of a case."""

    number: int
    """Number of the case."""
    result: str
    """`decoded`, `refused` or `failed`."""
    detail: str
    """Why it was refused, without numbers; or what failed."""
    seconds: float
    """Wall-clock time, including other load on the machine."""
    cpu_seconds: float
    """CPU time of all threads."""
    memory: int
    """Growth of the process's peak resident size, in bytes, since it decoded every valid file."""
