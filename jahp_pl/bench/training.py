"""How fast training steps are: several settings, and another program if one is given, in turns on the same machine.

Each is a process of its own (`paced`) that trains only when it is told to. In each round each of them takes a few
steps, so that a machine that slows down slows all; of the rounds the median counts, and ratios are taken within rounds.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
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
from jahp_pl.settings import load
from jahp_pl.training import TrainingError


class StepSpeed(NamedTuple):
    """Of one setting, medians over rounds."""

    name: str
    images_per_second: float
    seconds: float
    """Of an optimizer step."""
    waiting: float
    """Share of it that was spent waiting for data."""
    flops: float
    """Floating-point operations per second of the step."""
    matrix_flops: float
    """Those of a large matrix product in the same type, in the same rounds."""
    product_seconds: float
    """What the step's convolutions and GDN's matrix products take alone, one after the other, in the same rounds."""
    memory: int
    """Bytes at most: of the device, or of the whole process on a CPU."""
    times_peer: float | None
    """How many times the other program's images per second these are."""
    operations: dict[str, float]
    """Share of time of each operation that takes more than half a per cent."""


class PeerSpeed(NamedTuple):
    """Of another program."""

    name: str
    images_per_second: float


class Speeds(NamedTuple):
    """What was measured."""

    batch_size: int
    crop_size: int
    threads: int
    rounds: int
    flops_per_image: float
    """Of the first setting's step, as counted by torch; a multiplication and an addition are two."""
    variants: tuple[StepSpeed, ...]
    peer: PeerSpeed | None


class _Stepper:
    """A process that takes steps on command."""

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
        """Let it take its steps.

        Raises:
            TrainingError: it fails, or answers with something else.
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
            raise TrainingError(f"{self.name}: {lines[-1] if lines else 'it ended without an answer'}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(
    settings: Sequence[str],
    variants: Sequence[str],
    peer: str | None,
    threads: int,
    steps: int,
    rounds: int,
    progress: Callable[[str], None],
) -> Speeds:
    """Time the configuration as it is, then with each variant.

    Args:
        settings: YAML files and key=value pairs.
        variants: further pairs each, separated by spaces.
        peer: command of another program, called with BATCH CROP STEPS THREADS. For each line on its standard input it
            makes STEPS optimizer steps and prints {"name": ..., "seconds": of one step}.
        threads: of each program.
        steps: in each round.
        rounds: turns that each program has.
        progress: told the name of what runs now.

    Raises:
        ConfigError: a setting that cannot be used, or more than one process.
        TrainingError: a program fails.
    """
    choices = {"as configured": list(settings)} | {v: [*settings, *shlex.split(v)] for v in variants}
    configs = {name: load([*choice, *UNTIMED]) for name, choice in choices.items()}
    config = configs["as configured"]
    for name, other in configs.items():
        if other.trainer.num_ranks > 1:
            raise ConfigError(f"trainer.devices={other.trainer.devices}: steps are timed in one process; set it to 1")
        if (other.data.batch_size, other.data.crop_size) != (config.data.batch_size, config.data.crop_size):
            raise ConfigError(f"{name}: variants must have the batch and the crops of the first, to be compared")
    program = [sys.executable, "-m", "jahp_pl.bench.training_worker", str(threads), str(steps)]
    words = {}
    if peer is not None:  # first, so that a wrong command is known at once
        numbers = (config.data.batch_size, config.data.crop_size, steps, threads)
        words[peer] = [*shlex.split(peer), *map(str, numbers)]
    words |= {name: [*program, *choice] for name, choice in choices.items()}
    answers = _take_turns(words, rounds, progress)
    flops_per_image = {name: count_flops(other) for name, other in configs.items()}
    theirs = answers.pop(peer) if peer is not None else None
    batch_size = config.data.batch_size
    return Speeds(
        batch_size,
        config.data.crop_size,
        threads,
        rounds,
        flops_per_image["as configured"],
        tuple(_speed(name, rows, theirs, batch_size, flops_per_image[name]) for name, rows in answers.items()),
        PeerSpeed(theirs[0]["name"], batch_size / _median(theirs, "seconds")) if theirs is not None else None,
    )


def _take_turns(
    words: dict[str, list[str]], rounds: int, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """`rounds` answers of each program, and a profile with the last one of ours."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in words}
    with ExitStack() as stack:
        steppers = [stack.enter_context(_Stepper(name, line)) for name, line in words.items()]
        for _ in range(rounds):
            for stepper in steppers:
                progress(stepper.name)
                answers[stepper.name].append(stepper.ask("time"))
        for stepper in steppers:
            if "matrix_flops" in answers[stepper.name][0]:
                progress(stepper.name)
                answers[stepper.name][-1]["operations"] = stepper.ask("profile")["operations"]
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
    """Floating-point operations of one crop in a training step, in convolutions and matrix products."""
    x = torch.rand(1, 3, config.data.crop_size, config.data.crop_size)
    model, learns = CompressionModel(config.model), config.optim.transforms_learn
    for transform in (model.g_a, model.g_s):
        transform.requires_grad_(learns)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(rate_distortion(config.loss, x, model(x, reconstruct=learns)).loss)
    return float(counter.get_total_flops())


def table(name: str, speeds: Speeds) -> str:
    """For people."""
    lines = [
        f"{name}: {speeds.batch_size} crops of {speeds.crop_size} a step, {speeds.flops_per_image / 1e9:.1f} GFLOP a "
        f"crop, {speeds.threads} threads, median of {speeds.rounds} rounds",
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


def to_json(speeds: Speeds) -> dict[str, Any]:
    """Plain values."""
    peer = speeds.peer._asdict() if speeds.peer is not None else None
    return speeds._asdict() | {"variants": [row._asdict() for row in speeds.variants], "peer": peer}
