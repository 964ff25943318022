"""Trains a run in a `jahp train` process, which writes a log to the run folder and locks the folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jahp_pl.errors import write_errors
from jahp_pl.files.locks import RUN_LOCK, RUN_LOCK_VARIABLE, hold_lock
from jahp_pl.sweeping.runs import SweepRun

LOG = "log.txt"
"""Name of the log in the run folder."""
_NUM_LINES = 10
"""Number of lines of the log to show if a run failed."""
_SEARCHED_BYTES = 65536
"""Number of bytes at the end of the log in which these lines are searched."""
INTERRUPTED_SECONDS, ENDING_SECONDS = 10.0, 60.0
"""Seconds that an interrupted process gets to end by itself, and then to save its checkpoint after SIGTERM."""


class RunningProcess(NamedTuple):
    """Training process and its log."""

    process: subprocess.Popen[bytes]
    log: Path
    log_start: int
    """Number of bytes that earlier sessions wrote to the log."""


def start_training(run: SweepRun, environment: Mapping[str, str]) -> RunningProcess:
    """Start or continue a run.

    Args:
        run: run to train.
        environment: environment variables to add to this process's own.

    Raises:
        WriteError: if another process trains in the run folder, or the folder cannot be created.
    """
    folder = run.config.run_dir
    command = [sys.executable, "-m", "jahp_pl", "train", *run.arguments]
    # The process inherits the lock and thus holds it while training continues, even if this process dies.
    error_if_held = f"{folder}: another process is training there; wait for it, or end it"
    lock_held = hold_lock(folder / RUN_LOCK, error_if_held, folder)
    with lock_held as lock, write_errors(folder), (folder / LOG).open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, **environment, RUN_LOCK_VARIABLE: str(lock)}, pass_fds=(lock,),
        )  # fmt: skip
    return RunningProcess(process, folder / LOG, begin)


def last_lines(running: RunningProcess) -> list[str]:
    """Return the last lines that a process wrote to its log in this session."""
    with running.log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(running.log_start, size - _SEARCHED_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()][-_NUM_LINES:]


def failure_reason(running: RunningProcess) -> str:
    """Describe in one line why a process failed."""
    status = running.process.returncode
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + ("; was there enough memory?" if name == "SIGKILL" else "")
    lines = last_lines(running)
    messages = [line.removeprefix("jahp: ") for line in lines if line.startswith("jahp: ")] or lines
    return messages[-1] if messages else f"ended with status {status} and no message"


def end_processes(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes after an interrupt, which they may have received too; each saves its checkpoint first."""
    try:
        _wait(processes, INTERRUPTED_SECONDS)
        for process in processes:
            process.terminate()
        _wait(processes, ENDING_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
    for process in processes:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return


def environments(workers: int, num_devices: int) -> list[dict[str, str]]:
    """Divide the machine's threads and GPUs among workers; GPUs are assigned in turn.

    Args:
        workers: number of runs that train at once.
        num_devices: number of GPUs per run; 0 if it uses none.

    Returns:
        Environment variables for each worker.
    """
    if workers == 1:
        return [{}]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}
    shared: dict[str, str] = {} if "OMP_NUM_THREADS" in os.environ else threads
    gpus = _visible_gpus() if num_devices else []
    if not gpus:
        return [shared] * workers
    chosen = [[gpus[(worker * num_devices + i) % len(gpus)] for i in range(num_devices)] for worker in range(workers)]
    return [{**shared, "CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(names))} for names in chosen]


def _visible_gpus() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]
