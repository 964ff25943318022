"""Compares the times of calls that do the same, to choose the fastest one on this processor."""

from __future__ import annotations

import time
from collections.abc import Callable

TRIALS = 5
"""Calls of each function, of which the shortest counts."""


def shortest_times(*functions: Callable[[], object]) -> list[float]:
    """Call each function a few times and return its shortest time in seconds.

    The functions take turns, so that other load slows down all of them.
    """
    return [min(times) for times in zip(*([_seconds(call) for call in functions] for _ in range(TRIALS)), strict=True)]


def _seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
