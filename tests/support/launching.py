"""Starts training runs in their own processes, as users do, and never leaves them behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from jahp_pl.config import Config, to_dict

JAHP = (sys.executable, "-m", "jahp_pl")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
"""The command `torchrun` with a free port."""
LIMIT = 400.0
"""Seconds after which a process counts as hung."""


@contextmanager
def started(command: Sequence[str | Path], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process, with standard error in its output; it and its children are killed at the end of the block."""
    process = subprocess.Popen(
        [str(word) for word in command], env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def output_of(command: Sequence[str | Path], **environment: str) -> tuple[int, str]:
    """Return the exit status and the output of a process; fail the test if it hangs."""
    with started(command, **environment) as process:
        output, _ = process.communicate(timeout=LIMIT)
        return process.returncode, output


def settings_of(config: Config) -> Path:
    """Write a file for `jahp train` beside the run's folder."""
    file = config.run_dir.parent / f"{config.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(to_dict(config)))
    return file


def script(config: Config, body: str) -> list[str]:
    """Return the command that runs Python statements with the names `config` and `train`."""
    file = config.run_dir.parent / "script.py"
    source = (
        "from jahp_pl.settings import load_config\n"
        "from jahp_pl.training.run import train\n"
        f"config = load_config({str(settings_of(config))!r})\n"
        "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in body.splitlines())
    )
    file.write_text(source)
    return [sys.executable, str(file)]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Poll until a condition holds."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def has_logged(config: Config, step: int) -> Callable[[], bool]:
    """Check whether the run has written the row of a step."""
    log = config.run_dir / "metrics.csv"
    return lambda: log.exists() and f"\n{step}," in log.read_text()
