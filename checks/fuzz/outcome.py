"""Messages of a worker process."""

from __future__ import annotations

from typing import NamedTuple


class Ready(NamedTuple):
    """The worker accepts cases."""

    fingerprints: tuple[str, ...]
    """Of the subjects' codecs."""


class Outcome(NamedTuple):
    """Result of a case."""

    number: int
    result: str
    """decoded, refused or failed."""
    detail: str
    """Why it was refused, without numbers; or what failed."""
    seconds: float
    """By the clock, others' use of the machine included."""
    cpu_seconds: float
    """Of the processor, all threads together."""
    memory: int
    """Bytes by which the largest resident size of the process, since it decoded every true file, has grown."""
