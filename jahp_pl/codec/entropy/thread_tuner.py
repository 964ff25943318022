"""How many threads a loop of small steps should use, found out while it runs.

A step of the decoder is a millisecond of matrix products with few rows. On an idle machine more threads take a third
off it; where another process wants the same cores, threads wait for each other at every product and a step can take
ten times as long. No setting is right for both, and the results are the same to the last bit, so the loop tries.
"""

from __future__ import annotations

import time
from types import TracebackType

import torch

TRIAL = 6
"""Steps per count of threads before choosing, the counts taking turns."""
PATIENCE = 4
"""Steps in a row that may be slow before fewer threads are used for the rest."""
SLOW = 2.0
"""A step is slow when it takes this many times what it took with one thread in the trial."""


class Pace:
    """Sets torch's number of threads from step to step, and back at the end.

    Use as a context manager around the loop, and call `step` where each of its steps begins. Tries 1, 2, 4 threads and
    as many as the caller has, none more than that.
    """

    def __init__(self) -> None:
        self._before = torch.get_num_threads()
        self._counts = sorted({1, min(2, self._before), min(4, self._before), self._before})
        self._seconds: dict[int, list[float]] = {count: [] for count in self._counts}
        self._index = 0
        self._slow = 0
        self._started: float | None = None
        self.threads = self._before
        """In use now."""

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._use(self._before)

    def step(self) -> None:
        """A step begins, and the one before has ended."""
        if len(self._counts) == 1:
            return
        now = time.perf_counter()
        if self._started is not None:
            self._note(now - self._started)
        self._started = now
        self._index += 1

    def _note(self, seconds: float) -> None:
        if self._index <= TRIAL * len(self._counts):
            self._seconds[self.threads].append(seconds)
            self._use(self._counts[self._index % len(self._counts)])
            return
        typical = {count: sorted(times)[len(times) // 2] for count, times in self._seconds.items() if times}
        if self._index == TRIAL * len(self._counts) + 1:
            self._use(min(typical, key=lambda count: typical[count]))
            return
        if self.threads > 1:
            self._slow = self._slow + 1 if seconds > SLOW * typical[1] else 0
            if self._slow == PATIENCE:
                self._use(1)

    def _use(self, threads: int) -> None:
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        self.threads = threads
