"""Runs cases in worker processes, which may hang, die or be killed by their limits without losing a case."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Self

from checks.fuzz.outcome import Outcome, Ready

TIME_LIMIT = 120.0
"""Seconds after which a process is killed even if it uses no CPU time."""
TICK = 0.25
"""Seconds between two checks of all processes."""
START_LIMIT = 600.0
"""Seconds within which a worker must have built and tried its codecs: a few, but minutes at the lowest priority."""

Work = Callable[[Connection, int], None]


class Worker:
    """Worker process and the case that it is working on."""

    def __init__(self, seed: int, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, seed), daemon=True)
        self.process.start()
        theirs.close()
        if not self.connection.poll(START_LIMIT):
            raise RuntimeError(f"a worker did not start within {START_LIMIT} s")
        ready = self.connection.recv()
        assert isinstance(ready, Ready)
        self.number: int | None = None
        self.elapsed = 0.0

    def give(self, number: int) -> None:
        """Send a case to the worker."""
        self.number, self.elapsed = number, 0.0
        self.connection.send(number)

    def end(self) -> None:
        """Kill the worker."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Pool:
    """Pool of worker processes that keeps them busy and replaces lost ones.

    Args:
        seed: seed of the cases.
        workers: number of processes.
        work: function that each process runs; it sends `Ready`, then an outcome for every number that it receives.
        limit: maximum seconds for one case, on a clock that stops while this process is stopped. A case that exceeds it
            is repeated once, because the machine may have been busy. (The worker limits its own processor time.)
    """

    def __init__(self, seed: int, workers: int, work: Work, limit: float = TIME_LIMIT) -> None:
        self.seed, self.work, self.limit = seed, work, limit
        self.workers = [Worker(seed, work) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()

    def run(self, numbers: Iterable[int]) -> Iterator[Outcome]:
        """Yield one outcome for every case number, in any order."""
        waiting, repeated = list(numbers)[::-1], set[int]()
        while waiting or any(worker.number is not None for worker in self.workers):
            for worker in self.workers:
                if worker.number is None and waiting:
                    worker.give(waiting.pop())
            busy = [worker for worker in self.workers if worker.number is not None]
            start = time.perf_counter()
            ready = wait([worker.connection for worker in busy], timeout=TICK)
            passed = min(time.perf_counter() - start, 2 * TICK)
            for worker in busy:
                worker.elapsed += passed
                number, elapsed = worker.number, worker.elapsed
                assert number is not None
                outcome: Outcome | None = None
                if worker.connection in ready:
                    outcome = self._received(worker, number, elapsed)
                elif elapsed > self.limit:
                    self._replace(worker)
                    outcome = _lost(number, f"took more than {self.limit} s", elapsed)
                if outcome is None:
                    continue
                if elapsed > self.limit and number not in repeated:
                    repeated.add(number)
                    waiting.append(number)
                    continue
                yield outcome if elapsed <= self.limit else outcome._replace(result="failed")

    def _received(self, worker: Worker, number: int, elapsed: float) -> Outcome:
        """Return the outcome that a worker sent, or a failure if the worker died."""
        try:
            outcome = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            code = worker.process.exitcode
            self._replace(worker)
            why = "it took too much processor time" if code == -signal.SIGXCPU else f"exit code {code}"
            return _lost(number, f"the process died: {why}", elapsed)
        worker.number = None
        assert isinstance(outcome, Outcome)
        return outcome

    def _replace(self, worker: Worker) -> None:
        worker.end()
        self.workers[self.workers.index(worker)] = Worker(self.seed, self.work)


def _lost(number: int, why: str, seconds: float) -> Outcome:
    """Return the failure of a case whose worker sent no outcome."""
    return Outcome(number, "failed", why, seconds, seconds, 0)
