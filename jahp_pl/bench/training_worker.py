"""Training steps on command: `python -m jahp_pl.bench.training_worker THREADS STEPS SETTING...`, a program for `speed`.

It trains as `jahp train` does, with the same loop, loaders and precision, but only when it is told to: each line on
standard input, "time" or "profile", makes it take its steps and answer with one line of JSON on standard output.
Between two of them it waits, so that several such programs can take turns. It writes no checkpoint and validates
nothing.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.profiler import profile

from jahp_pl.bench.roofline import matrix_flops, product_seconds, products, synchronise
from jahp_pl.config import Config
from jahp_pl.data.module import ShardDataModule, StreamLoader
from jahp_pl.settings import load
from jahp_pl.training.lightning_warnings import only_useful_messages
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import build_trainer

NUM_LEADING = 2
"""Steps before the clock starts: memory is laid out in the first, and loaders that worked ahead have nothing left."""

UNTIMED = ("data.val=[]", "coding.max_images=0", "wandb.mode=disabled", "trainer.max_steps=1000000000")
"""Settings that leave nothing but steps."""


class _EnoughError(Exception):
    """Standard input ended."""


class TimedBatches:
    """Batches of a loader, and how long they were waited for."""

    def __init__(self, loader: StreamLoader) -> None:
        self.seconds = 0.0
        """Spent waiting since the start."""
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            batch = next(batches)  # without end
            self.seconds += time.perf_counter() - start
            yield batch


class TimedData(ShardDataModule):
    """With a clock on its training batches."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.data, config.seed)
        self._timed: TimedBatches | None = None

    def train_dataloader(self) -> TimedBatches:  # type: ignore[override]
        """Batches without end."""
        self._timed = TimedBatches(super().train_dataloader())
        return self._timed

    def waited(self) -> float:
        """Seconds so far."""
        return self._timed.seconds if self._timed is not None else 0.0


class Pace(Callback):
    """Lets so many steps go for each command.

    Args:
        data: what is trained on.
        num_steps: timed for each command, after `NUM_LEADING` others.
        commands: lines to read.
        answers: where JSON is written.
    """

    def __init__(self, data: TimedData, num_steps: int, commands: TextIO, answers: TextIO) -> None:
        self._data, self._num_steps = data, num_steps
        self._commands, self._answers = commands, answers
        self._place = -1
        self._answer: dict[str, Any] = {}
        self._profile: profile | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        """A step ends where the next one begins."""
        if self._place == self._num_steps + NUM_LEADING:
            self._stop(pl_module.device)
        if self._place in (-1, self._num_steps + NUM_LEADING):
            assert isinstance(pl_module, CompressionModule)
            self._begin(trainer, pl_module, batch)
            self._place = 0
        if self._place == NUM_LEADING:
            self._start(pl_module.device)
        self._place += 1

    def _begin(self, trainer: Trainer, module: CompressionModule, batch: Tensor) -> None:
        command = self._commands.readline().strip()
        if not command:
            raise _EnoughError
        self._profile = profile() if command == "profile" else None
        dtype = torch.bfloat16 if trainer.precision == "bf16-mixed" else torch.float32
        found = products(module.model, module.laid_out(batch), module.config.optim.transforms_learn)
        self._answer = {
            "matrix_flops": matrix_flops(module.device, dtype),
            "product_seconds": product_seconds(found, dtype),
        }

    def _start(self, device: torch.device) -> None:
        synchronise(device)
        if self._profile is not None:
            self._profile.start()
        self._waited, self._started = self._data.waited(), time.perf_counter()

    def _stop(self, device: torch.device) -> None:
        synchronise(device)
        seconds = time.perf_counter() - self._started
        answer = self._answer | {
            "seconds": seconds / self._num_steps,
            "waiting": (self._data.waited() - self._waited) / seconds,
            "memory": peak_memory(device),
        }
        if self._profile is not None:
            self._profile.stop()
            answer["operations"] = shares(self._profile)
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device's memory, or of this process where it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shares(profiled: profile) -> dict[str, float]:
    """Operation -> its own share of the time of all, largest first; on a GPU, of the time of its kernels."""
    events = profiled.key_averages()
    own = {event.key: float(event.self_device_time_total) for event in events}
    if not any(own.values()):
        own = {event.key: float(event.self_cpu_time_total) for event in events}
    total = sum(own.values())
    return {key: own[key] / total for key in sorted(own, key=own.__getitem__, reverse=True) if own[key] > 0.005 * total}


def main(threads: str, num_steps: str, *settings: str) -> None:
    """Train on command; see the module."""
    torch.set_num_threads(int(threads))
    with tempfile.TemporaryDirectory() as folder, only_useful_messages():
        config = load([*settings, *UNTIMED, f"output_dir={folder}"])
        seed_everything(config.seed, workers=True, verbose=False)
        data = TimedData(config)
        trainer = build_trainer(config, [], [Pace(data, int(num_steps), sys.stdin, sys.stdout)])
        try:
            trainer.fit(CompressionModule(config), datamodule=data)
        except _EnoughError:
            return


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    main(*arguments)
