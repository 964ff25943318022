"""Runs commands of the package as processes of their own, and measures what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple


class ProcessCost(NamedTuple):
    """Cost of one process."""

    seconds: float
    """Elapsed time in seconds."""
    cpu_seconds: float
    """CPU time in seconds."""
    bytes: int
    """Peak resident memory in bytes."""


def run_command(*arguments: str) -> ProcessCost:
    """Run `jahp` with these arguments, and measure the process.

    Raises:
        SystemExit: if the command fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "jahp_pl", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"jahp {' '.join(arguments)}: exit code {os.waitstatus_to_exitcode(status)}")
    return ProcessCost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
