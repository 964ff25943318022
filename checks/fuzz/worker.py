"""Decodes damaged files in a process with limits of time and memory, and reports each outcome."""

from __future__ import annotations

import math
import os
import re
import resource
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from checks.fuzz.corpus import Subject, subjects
from checks.fuzz.mutate import Case, damaged_case
from checks.fuzz.outcome import Outcome, Ready
from jahp_pl.codec.bitstream import MAX_PIXELS, BitstreamError, unpack

CPU_LIMIT = 10
"""Maximum CPU seconds of all threads for one case. The kernel ends a process that takes one second longer."""
MEMORY_LIMIT = 2**30
"""Maximum growth of the process's memory in bytes, after it has decoded every valid file."""


def work(connection: Connection, seed: int) -> None:
    """Answer case numbers with outcomes until None arrives."""
    torch.set_num_threads(1)
    known = subjects()
    corpus = [subject.files for subject in known]
    for subject in known:
        for data in subject.files:
            subject.codec.decode(data)

    def try_case(number: int) -> tuple[str, str]:
        damaged = damaged_case(seed, number, corpus)
        return _decode(known[damaged.subject], damaged)

    serve(connection, try_case)


def serve(connection: Connection, try_case: Callable[[int], tuple[str, str]]) -> None:
    """Set the limits of memory, and answer case numbers with outcomes until None arrives.

    Args:
        connection: connection to the pool.
        try_case: returns `result` and `detail` of the outcome of a case.
    """
    before = _peak()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_LIMIT, size + MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(Ready())
    while (number := connection.recv()) is not None:
        start, cpu_start = time.perf_counter(), time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu_start) + CPU_LIMIT, resource.RLIM_INFINITY))
        result, detail = try_case(number)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        if cpu_seconds > CPU_LIMIT:
            result, detail = "failed", f"took {cpu_seconds:.1f} s"
        connection.send(Outcome(number, result, detail, seconds, cpu_seconds, _peak() - before))


def _decode(subject: Subject, damaged: Case) -> tuple[str, str]:
    """Decode the file of a case, and return `result` and `detail` of its outcome."""
    try:
        decoded = subject.codec.decode(damaged.data, damaged.max_pixels)
    except BitstreamError as error:
        return "refused", re.sub(r"\b[0-9a-f]{16}\b|-?\d+", "#", str(error))
    except BaseException:  # noqa: BLE001  any exception but BitstreamError is a failure
        return "failed", traceback.format_exc()
    header, _ = unpack(damaged.data, MAX_PIXELS)
    if decoded.image.shape != (3, header.height, header.width) or decoded.image.dtype != torch.uint8:
        return "failed", f"the image has shape {tuple(decoded.image.shape)}"
    if not header.latent_min <= int(decoded.y_hat.min()) <= int(decoded.y_hat.max()) <= header.latent_max:
        return "failed", "latents beyond the range of the header"
    return "decoded", ""


def _peak() -> int:
    """Return the peak resident size of this process in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
