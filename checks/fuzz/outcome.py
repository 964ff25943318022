"""Defines the messages that a worker process sends."""

from __future__ import annotations

from typing import NamedTuple


class Ready:
    """Message that the worker accepts cases."""


class Outcome(NamedTuple):
    """Message with the result of a case."""

    number: int
    """Number of the case."""
    result: str
    """`decoded`, `refused` or `failed`."""
    detail: str
    """Reason for a refusal, without numbers, or description of a failure."""
    seconds: float
    """Wall-clock time, including other load on the machine."""
    cpu_seconds: float
    """CPU time of all threads."""
    memory: int
    """Growth of the process's peak resident memory, in bytes, since it had decoded every valid file."""
