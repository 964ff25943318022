"""Takes training steps on command, for `training`: `python -m jahp_pl.bench.training_worker THREADS STEPS SETTING...`.

It trains like `jahp train`, with the same loop, loaders and precision, but only on command. For each line on standard
input, "time" or "profile", it takes STEPS steps, answers with one line of JSON on standard output, and waits for the
next line, so that several such programs can take turns. It neither validates nor writes checkpoints.
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

from jahp_pl.bench.roofline import matrix_flops, product_seconds, record_layer_calls, synchronize
from jahp_pl.config import Config
from jahp_pl.data.module import ShardDataModule, StreamLoader
from jahp_pl.errors import JahpError
from jahp_pl.settings import load_config
from jahp_pl.training.lightning_warnings import only_useful_messages
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import build_trainer

NUM_WARMUP = 2
"""Number of untimed steps: the first allocates memory, and they use up the batches that were prepared in advance."""

UNTIMED = ("data.val=[]", "coding.max_images=0", "wandb.mode=disabled", "trainer.max_steps=1000000000")
"""Settings that disable everything except training steps."""


class _EndOfCommandsError(Exception):
    """Raised when standard input ends."""


class TimedBatches:
    """Batches of a loader, with the time spent waiting for them."""

    def __init__(self, loader: StreamLoader) -> None:
        self.seconds = 0.0
        """Seconds spent waiting since the start."""
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            batch = next(batches)  # the loader is endless
            self.seconds += time.perf_counter() - start
            yield batch


class TimedData(ShardDataModule):
    """Data module that measures how long training waits for its batches."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.data, config.seed)
        self._timed: TimedBatches | None = None

    def train_dataloader(self) -> TimedBatches:  # type: ignore[override]
        """Return an endless loader of timed batches."""
        self._timed = TimedBatches(super().train_dataloader())
        return self._timed

    def waited(self) -> float:
        """Return the seconds spent waiting so far."""
        return self._timed.seconds if self._timed is not None else 0.0


class StepController(Callback):
    """Callback that lets training take a number of steps for each command.

    Args:
        data: training data.
        num_steps: timed steps per command, after `NUM_WARMUP` untimed ones.
        commands: stream of commands, one per line.
        answers: stream for JSON answers.
    """

    def __init__(self, data: TimedData, num_steps: int, commands: TextIO, answers: TextIO) -> None:
        self._data, self._num_steps = data, num_steps
        self._commands, self._answers = commands, answers
        self._step = -1
        self._answer: dict[str, Any] = {}
        self._profile: profile | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        """Handle the start of a step, which is also the end of the previous one."""
        if self._step == self._num_steps + NUM_WARMUP:
            self._stop(pl_module.device)
        if self._step in (-1, self._num_steps + NUM_WARMUP):
            assert isinstance(pl_module, CompressionModule)
            self._begin(trainer, pl_module, batch)
            self._step = 0
        if self._step == NUM_WARMUP:
            self._start(pl_module.device)
        self._step += 1

    def _begin(self, trainer: Trainer, module: CompressionModule, batch: Tensor) -> None:
        command = self._commands.readline().strip()
        if not command:
            raise _EndOfCommandsError
        if command == "profile":
            self._profile, self._answer = profile(), {}
            return
        self._profile = None
        dtype = torch.bfloat16 if trainer.precision == "bf16-mixed" else torch.float32
        found = record_layer_calls(module.model, module.prepare_batch(batch), module.config.optim.transforms_learn)
        self._answer = {
            "matrix_flops": matrix_flops(module.device, dtype),
            "product_seconds": product_seconds(found, dtype),
        }

    def _start(self, device: torch.device) -> None:
        synchronize(device)
        if self._profile is not None:
            self._profile.start()
        self._waited, self._started = self._data.waited(), time.perf_counter()

    def _stop(self, device: torch.device) -> None:
        synchronize(device)
        seconds = time.perf_counter() - self._started
        answer = self._answer | {
            "seconds": seconds / self._num_steps,
            "waiting": (self._data.waited() - self._waited) / seconds,
            "memory": peak_memory(device),
        }
        if self._profile is not None:
            self._profile.stop()
            answer["operations"] = time_shares(self._profile)
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_shares(profiled: profile) -> dict[str, float]:
    """Compute each operation's own share of the total time (on a GPU, of the kernels' time), largest first."""
    events = profiled.key_averages()
    own = {event.key: float(event.self_device_time_total) for event in events}
    if not any(own.values()):
        own = {event.key: float(event.self_cpu_time_total) for event in events}
    total = sum(own.values())
    return {key: own[key] / total for key in sorted(own, key=own.__getitem__, reverse=True) if own[key] > 0.005 * total}


def main(threads: str, num_steps: str, *settings: str) -> None:
    """Train on command; the module's docstring describes the arguments and the protocol."""
    torch.set_num_threads(int(threads))
    with tempfile.TemporaryDirectory() as folder, only_useful_messages():
        config = load_config(*settings, *UNTIMED, f"output_dir={folder}")
        seed_everything(config.seed, workers=True, verbose=False)
        data = TimedData(config)
        trainer = build_trainer(config, [], [StepController(data, int(num_steps), sys.stdin, sys.stdout)])
        try:
            trainer.fit(CompressionModule(config), datamodule=data)
        except _EndOfCommandsError:
            return


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    try:
        main(*arguments)
    except JahpError as error:
        sys.exit(str(error))  # without its type, because `bench.training` shows the last line
