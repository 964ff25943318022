"""Runs sessions of a training run: processes that get SIGKILL at a given kind of moment, or run to the end."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Literal, get_args

from jahp_pl.config import Config
from jahp_pl.model_io.checkpoint_files import CHECKPOINTS, LAST

Moment = Literal["start", "step", "validation", "writing"]
"""Kind of moment at which to kill a session: while it starts or resumes, trains, validates, or writes a checkpoint."""
MOMENTS: tuple[Moment, ...] = get_args(Moment)
LIMIT = 1800.0
"""Seconds after which a session counts as hung."""


class SessionError(Exception):
    """Error that a session failed by itself or made no progress."""


class EndedError(Exception):
    """Error that a session reached the end of the run before it could be killed."""


def train_in_session(config: Config) -> None:
    """Train in the process of a session."""
    import torch

    from jahp_pl.training.run import train

    # Data workers are children, as in `jahp train`, and notice the end of their parent.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    train(config)


def last_step(config: Config) -> int:
    """Return the step in the last row of metrics.csv."""
    path = config.run_dir / "metrics.csv"
    lines = path.read_text().splitlines() if path.exists() else []
    first = lines[-1].split(",")[0] if lines else ""
    return int(first) if first.isdecimal() else 0


@contextmanager
def session(config: Config) -> Iterator[BaseProcess]:
    """Start a training process by forking one that has imported everything, so that it starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jahp_pl.training.run"])
    process = context.Process(target=train_in_session, args=(config,))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def run_to_its_end(config: Config) -> None:
    """Run a session without a kill.

    Raises:
        SessionError: if the session fails.
    """
    with session(config) as process:
        process.join(LIMIT)
        if process.exitcode != 0:
            raise SessionError(f"a session ended with exit code {process.exitcode}")


def run_and_kill(config: Config, step: int, moment: Moment, rng: random.Random) -> float:
    """Run a session and kill it after it has logged a step, at a moment of the given kind.

    Returns:
        The lifetime of the session in seconds.

    Raises:
        EndedError: if the run reached its end before the kill.
        SessionError: if the session fails or makes no progress.
    """
    begin = time.monotonic()
    with session(config) as process:
        if moment == "start":
            _live(process, rng.uniform(0.0, 1.0))
        else:
            while last_step(config) < step:
                _live(process, 0.05, begin)
            _await(moment, config, process, rng)
        process.kill()
        process.join()
    return time.monotonic() - begin


def _await(moment: Moment, config: Config, process: BaseProcess, rng: random.Random) -> None:
    """Wait until the session is at a moment of this kind."""
    folder, begin = config.run_dir / CHECKPOINTS, time.monotonic()
    if moment == "step":
        _live(process, rng.uniform(0.0, 0.3))
    elif moment == "validation":  # begins when its checkpoint is written
        before = _written(config)
        while _written(config) == before:
            _live(process, 0.005, begin)
        _live(process, rng.uniform(0.0, 0.3))
    elif moment == "writing":
        for _ in range(rng.randrange(1, 4)):  # before and after validations, to the last and to the best
            while not list(folder.glob(".*.part")):
                _live(process, 0.0005, begin)
            _live(process, rng.uniform(0.0, 0.003), begin)


def _written(config: Config) -> int:
    """Return the time in nanoseconds at which last.ckpt was written; 0 if there is none."""
    path = config.run_dir / CHECKPOINTS / LAST
    return path.stat().st_mtime_ns if path.exists() else 0


def _live(process: BaseProcess, seconds: float, since: float | None = None) -> None:
    """Let a session run for some time; raise an error if it ends, or has made no progress since the time `since`."""
    process.join(seconds)
    if process.exitcode == 0:
        raise EndedError
    if process.exitcode is not None:
        raise SessionError(f"a session ended by itself with exit code {process.exitcode}")
    if since is not None and time.monotonic() - since > LIMIT:
        raise SessionError(f"a session made no progress for {LIMIT:.0f} s")
