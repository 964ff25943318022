"""Prepares many photographs in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.prepare import PreparedPhoto, ShardOptions, prepare
from jahp_pl.data.sources import FoundPhoto

_DELAYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "pthread_sigmask") else ()
"""Signals that wait while processes are started; none on Windows."""


def prepare_all(
    photos: Sequence[FoundPhoto], options: ShardOptions, workers: int | None
) -> Iterator[PreparedPhoto | Skipped]:
    """Run `prepare` in several processes, which stay a few photographs ahead; yield the results in order.

    Args:
        photos: photographs to prepare.
        options: how to prepare them.
        workers: number of processes; None for one per core, 1 to prepare in this process.

    Raises:
        DataError: if a process was killed.
    """
    workers = workers or _num_cores()
    if workers == 1:
        yield from (prepare(photo, options) for photo in photos)
        return
    # fork starts quickly and imports nothing. It is safe, because these processes use neither torch nor its threads.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context(method), initializer=_start_worker, initargs=(os.getpid(),)
    )
    pending: deque[Future[PreparedPhoto | Skipped]] = deque()
    try:
        for photo in photos:
            with _signals_delayed():  # because submitting may start processes
                pending.append(pool.submit(prepare, photo, options))
            if len(pending) >= 3 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a decoding process was killed, probably for lack of memory; free some, or use fewer processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Prepare a decoding process: leave interrupts to the parent, end with it, and show no warnings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore")  # Pillow's warnings about odd metadata
    if _DELAYED:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _DELAYED)


@contextmanager
def _signals_delayed() -> Iterator[None]:
    """Delay signals to the end of the block, and in processes that are started in it until they are prepared.

    An exception that a signal handler raises during a fork can get lost, because Python ignores those of fork hooks.
    """
    if not _DELAYED:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DELAYED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_with(parent: int) -> None:
    """End this process when its parent has ended, even if the parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
