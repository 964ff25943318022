"""Chooses the number of threads for a loop of small steps while it runs.

A step of the decoder is a millisecond of matrix products with few rows. On an idle machine more threads save a third of
it. If another process uses the same cores, threads wait for each other at every product and a step can take ten times
as long. No fixed number suits both cases. Results are bit-identical with any number, so it is chosen by measurement.
"""

from __future__ import annotations

import time
from types import TracebackType

import torch

TRIAL_STEPS = 6
"""Steps per thread count in the trial at the beginning, in which the counts alternate."""
MAX_SLOW_STEPS = 4
"""Number of consecutive slow steps after which one thread is used for all further steps."""
SLOW_FACTOR = 2.0
"""A step is slow if it takes more than this many times the median step with one thread in the trial."""


class ThreadTuner:
    """Context manager that sets torch's number of threads step by step, and restores it at the end.

    Use it around the loop, and call `step` at the start of each step. It tries 1, 2 and 4 threads and the caller's
    number, but never more than the caller's.
    """

    def __init__(self) -> None:
        self._before = torch.get_num_threads()
        self._counts = sorted({1, min(2, self._before), min(4, self._before), self._before})
        self._seconds: dict[int, list[float]] = {count: [] for count in self._counts}
        self._index = 0
        self._slow = 0
        self._started: float | None = None
        self.threads = self._before
        """Number of threads in use."""

    def __enter__(self) -> ThreadTuner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._use(self._before)

    def step(self) -> None:
        """Record that the previous step has ended and the next one begins."""
        if len(self._counts) == 1:
            return
        now = time.perf_counter()
        if self._started is not None:
            self._record(now - self._started)
        self._started = now
        self._index += 1

    def _record(self, seconds: float) -> None:
        if self._index <= TRIAL_STEPS * len(self._counts):
            self._seconds[self.threads].append(seconds)
            self._use(self._counts[self._index % len(self._counts)])
            return
        median = {count: sorted(times)[len(times) // 2] for count, times in self._seconds.items() if times}
        if self._index == TRIAL_STEPS * len(self._counts) + 1:
            self._use(min(median, key=lambda count: median[count]))
            return
        if self.threads > 1:
            self._slow = self._slow + 1 if seconds > SLOW_FACTOR * median[1] else 0
            if self._slow == MAX_SLOW_STEPS:
                self._use(1)

    def _use(self, threads: int) -> None:
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        self.threads = threads
