"""Measures the speed of training steps with several settings, and optionally of another program, on one machine.

Each setting runs in a process of its own (`training_worker`) that trains only on command, as does the other program. In
every round, each process takes a few steps, so that a slowdown of the machine affects all. The results are medians over
rounds; ratios are computed within rounds.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch.utils.flop_counter import FlopCounterMode

from jahp_pl.bench.training_worker import UNTIMED
from jahp_pl.config import Config, ConfigError
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from jahp_pl.settings import load_config
from jahp_pl.text import count_of
from jahp_pl.training import TrainingError


class StepSpeed(NamedTuple):
    """Results of one setting, as medians over rounds."""

    name: str
    images_per_second: float
    seconds: float
    """Seconds per optimizer step."""
    waiting: float
    """Share of the time spent waiting for data, from 0 to 1."""
    flops: float
    """Floating-point operations per second that the step reaches."""
    matrix_flops: float
    """Operations per second of a large matrix product with the same dtype, in the same rounds."""
    product_seconds: float
    """Seconds for the step's convolutions and GDN's matrix products alone, run one by one in the same rounds."""
    memory: int
    """Peak memory in bytes: of the device, or of the whole process on a CPU."""
    times_peer: float | None
    """Ratio of its images per second to the other program's; None without another program."""
    operations: dict[str, float]
    """Share of the time that each operation takes, by name; only shares above 0.5 %."""


class PeerSpeed(NamedTuple):
    """Results of another program."""

    name: str
    images_per_second: float


class TrainingSpeeds(NamedTuple):
    """Results of all programs."""

    batch_size: int
    crop_size: int
    threads: int
    rounds: int
    flops_per_image: float
    """Floating-point operations per image in a step of the first setting, as torch counts them: a multiplication and
    an addition are two operations."""
    variants: tuple[StepSpeed, ...]
    peer: PeerSpeed | None


class _SteppingProcess:
    """Process that takes training steps on command."""

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, command: str) -> dict[str, Any]:
        """Let the process take its steps, and return its answer.

        Raises:
            TrainingError: if the process ends without an answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
            while not line.startswith("{") and (line := self._process.stdout.readline()):
                pass
        except BrokenPipeError:
            pass
        if not line:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines()
            raise TrainingError(
                f"{self.name}: {lines[-1] if lines else 'it ended without an answer; run it alone to see why'}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure_training(
    settings: Sequence[str],
    variants: Sequence[str],
    peer: str | None,
    threads: int,
    steps: int,
    rounds: int,
    progress: Callable[[str], None],
) -> TrainingSpeeds:
    """Time the given configuration, then each variant of it.

    Args:
        settings: YAML files and key=value pairs.
        variants: further key=value pairs of each variant, separated by spaces.
        peer: command of another program, called with BATCH CROP STEPS THREADS. For each line on its standard input, it
            must take STEPS optimizer steps and print {"name": NAME, "seconds": SECONDS OF ONE STEP}.
        threads: number of threads of each program.
        steps: number of steps of each program in each round.
        rounds: number of rounds.
        progress: called with the name of each program before it runs.

    Raises:
        ConfigError: if a setting is unusable, or there is more than one process.
        TrainingError: if a program fails.
    """
    choices = {"as configured": list(settings)} | {v: [*settings, *shlex.split(v)] for v in variants}
    configs = {name: load_config(*choice, *UNTIMED) for name, choice in choices.items()}
    _check_comparable(configs)
    config = configs["as configured"]
    program = [sys.executable, "-m", "jahp_pl.bench.training_worker", str(threads), str(steps)]
    words = {}
    if peer is not None:  # first, so that a wrong command fails at once
        numbers = (config.data.batch_size, config.data.crop_size, steps, threads)
        words[peer] = [*shlex.split(peer), *map(str, numbers)]
    words |= {name: [*program, *choice] for name, choice in choices.items()}
    answers = _take_turns(words, rounds, progress)
    flops_per_image = {name: count_flops(other) for name, other in configs.items()}
    theirs = answers.pop(peer) if peer is not None else None
    batch_size = config.data.batch_size
    return TrainingSpeeds(
        batch_size,
        config.data.crop_size,
        threads,
        rounds,
        flops_per_image["as configured"],
        tuple(_speed(name, rows, theirs, batch_size, flops_per_image[name]) for name, rows in answers.items()),
        PeerSpeed(theirs[0]["name"], batch_size / _median(theirs, "seconds")) if theirs is not None else None,
    )


def _check_comparable(configs: Mapping[str, Config]) -> None:
    """Refuse to compare configurations whose batch or crop size differs, or that need several processes.

    Raises:
        ConfigError: if a configuration cannot be compared.
    """
    sizes = {name: (config.data.batch_size, config.data.crop_size) for name, config in configs.items()}
    first = next(iter(sizes.values()))
    for name, config in configs.items():
        if config.trainer.num_ranks > 1:
            raise ConfigError(f"trainer.devices={config.trainer.devices}: steps are timed in one process; set it to 1")
        if sizes[name] != first:
            raise ConfigError(f"{name}: has another batch or crop size than the first; variants must keep both")


def _take_turns(
    words: dict[str, list[str]], rounds: int, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Let the programs answer in turns, `rounds` times each; the last answer of our own programs has a profile."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in words}
    with ExitStack() as stack:
        processes = [stack.enter_context(_SteppingProcess(name, line)) for name, line in words.items()]
        for _ in range(rounds):
            for process in processes:
                progress(process.name)
                answers[process.name].append(process.ask("time"))
        for process in processes:
            if "matrix_flops" in answers[process.name][0]:
                progress(process.name)
                answers[process.name][-1]["operations"] = process.ask("profile")["operations"]
    return answers


def _speed(
    name: str, rows: list[dict[str, Any]], peer: list[dict[str, Any]] | None, batch_size: int, flops_per_image: float
) -> StepSpeed:
    seconds = _median(rows, "seconds")
    ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in zip(peer or (), rows, strict=False)]
    return StepSpeed(
        name,
        batch_size / seconds,
        seconds,
        _median(rows, "waiting"),
        flops_per_image * batch_size / seconds,
        _median(rows, "matrix_flops"),
        _median(rows, "product_seconds"),
        max(row["memory"] for row in rows),
        median(ratios) if ratios else None,
        rows[-1]["operations"],
    )


def _median(rows: list[dict[str, Any]], key: str) -> float:
    return float(median(row[key] for row in rows))


def count_flops(config: Config) -> float:
    """Count the floating-point operations per crop that a training step spends on convolutions and matrix products."""
    x = torch.rand(1, 3, config.data.crop_size, config.data.crop_size)
    model, learns = CompressionModel(config.model), config.optim.transforms_learn
    for transform in (model.g_a, model.g_s):
        transform.requires_grad_(learns)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(rate_distortion(config.loss, x, model(x, reconstruct=learns)).loss)
    return float(counter.get_total_flops())


def training_table(name: str, speeds: TrainingSpeeds) -> str:
    """Format the results as text for a terminal."""
    lines = [
        f"{name}: {count_of(speeds.batch_size, 'crop')} of {speeds.crop_size} per step, "
        f"{speeds.flops_per_image / 1e9:.1f} GFLOP per crop, {count_of(speeds.threads, 'thread')}, "
        f"median of {count_of(speeds.rounds, 'round')}",
        f"  {'':40} images/s   s/step  waiting  GFLOP/s  of a matrix product's  in products   memory",
    ]
    for row in speeds.variants:
        lines.append(
            f"  {row.name:40} {row.images_per_second:8.2f} {row.seconds:8.3f} {row.waiting:8.1%} {row.flops / 1e9:8.0f}"
            f"  {row.flops / row.matrix_flops:8.0%} of {row.matrix_flops / 1e9:6.0f}"
            f" {row.product_seconds / row.seconds:12.0%}  {row.memory / 2**20:6.0f} MiB"
            + (f"  {row.times_peer:.2f} x peer" if row.times_peer is not None else "")
        )
    if speeds.peer is not None:
        lines.append(f"  {speeds.peer.name:40} {speeds.peer.images_per_second:8.2f}")
    best = max(speeds.variants, key=lambda row: row.images_per_second)
    lines.append(f"  where the time of the fastest goes ({best.name}):")
    lines += [f"    {share:6.1%}  {operation}" for operation, share in list(best.operations.items())[:12]]
    return "\n".join(lines)


def training_to_json(speeds: TrainingSpeeds) -> dict[str, Any]:
    """Convert the results to values that JSON can hold."""
    peer = speeds.peer._asdict() if speeds.peer is not None else None
    return speeds._asdict() | {"variants": [row._asdict() for row in speeds.variants], "peer": peer}
