"""What a worker process tells."""

from __future__ import annotations

from typing import NamedTuple


class Ready(NamedTuple):
    """A worker can be given cases."""

    fingerprints: tuple[str, ...]
    """Of the subjects' codecs."""


class Outcome(NamedTuple):
    """What came of a case."""

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
