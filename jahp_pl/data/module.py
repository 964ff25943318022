"""The LightningDataModule: streams of `pipeline` behind loaders, with exact counts of what was skipped."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jahp_pl.config import ConfigError, DataConfig
from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.pipeline import CropStream, Delivery, ValImage, WholeImages
from jahp_pl.data.urls import expand_shards

_NUM_EXAMPLES = 20


@dataclass
class SkipTally:
    """What the batches that reached this process left out on their way; exact, and equal in two equal runs.

    Training draws photographs again and again, and each draw of a broken one counts.
    """

    num_broken: int = 0
    """Photographs that could not be decoded, and truncated rests of shards."""
    num_small: int = 0
    """Photographs smaller than the crop."""
    examples: list[Skipped] = field(default_factory=list)
    """The first 20 different ones, for a message."""

    def clear(self) -> None:
        """Start again from nothing."""
        self.num_broken, self.num_small = 0, 0
        self.examples.clear()

    def add(self, skipped: tuple[Skipped, ...]) -> None:
        """Count what one delivery brought."""
        for photo in skipped:
            self.num_broken += photo.reason == "broken"
            self.num_small += photo.reason == "small"
            if len(self.examples) < _NUM_EXAMPLES and photo not in self.examples:
                self.examples.append(photo)


class StreamLoader(DataLoader[Delivery]):
    """A DataLoader that keeps the tally and hands on the payloads alone.

    It is resumable in Lightning's sense: its state is the tally; the place in the stream follows from the step.
    """

    def __init__(self, stream: CropStream | WholeImages, tally: SkipTally, **options: Any) -> None:
        super().__init__(stream, collate_fn=_collate, worker_init_fn=_start_worker, **options)
        self._tally = tally

    def __iter__(self) -> Iterator[Tensor | ValImage]:  # type: ignore[override]
        if isinstance(self.dataset, WholeImages):  # each validation counts for itself
            self._tally.clear()
        for delivery in super().__iter__():
            self._tally.add(delivery.skipped)
            if delivery.error is not None:
                raise DataError(delivery.error)
            if delivery.payload is not None:
                yield delivery.payload

    def state_dict(self) -> dict[str, int]:
        """The counts so far, as plain numbers."""
        return {"num_broken": self._tally.num_broken, "num_small": self._tally.num_small}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting from there."""
        self._tally.num_broken, self._tally.num_small = state["num_broken"], state["num_small"]


class ShardDataModule(lightning.LightningDataModule):
    """Crops for training, whole images for validation.

    A batch for training is (B, 3, crop, crop), float in [0, 1], with B = batch size / number of processes. A batch for
    validation is a `ValImage` with (1, 3, H, W).

    Resuming: the stream is seeded with the optimizer step it begins at, so that a resumed run draws new crops instead
    of those it has seen. It neither repeats nor skips in expectation; the shuffle buffer starts empty.

    Args:
        config: shards, crops, batches and workers.
        seed: of the order and the place of the crops.
    Raises:
        DataError: shards that are missing or empty.
    """

    def __init__(self, config: DataConfig, seed: int) -> None:
        super().__init__()
        self._config, self._seed = config, seed
        self._train_urls = expand_shards(config.train, "data.train")
        self._val_urls = expand_shards(config.val, "data.val") if config.val else []
        self.train_skipped = SkipTally()
        """Of the training batches that this process has received."""
        self.val_skipped = SkipTally()
        """Of this process's share of the validation images, in the last validation."""

    def train_dataloader(self) -> StreamLoader:
        """Batches without end; the run's number of steps ends it.

        Raises:
            ConfigError: the batch does not divide by the number of processes.
        """
        rank, world_size = self._place()
        if self._config.batch_size % world_size:
            raise ConfigError(
                f"data.batch_size={self._config.batch_size}: must be a multiple of the {world_size} training processes"
            )
        step = self.trainer.global_step if self.trainer is not None else 0
        workers = self._config.num_workers
        return StreamLoader(
            CropStream(self._train_urls, self._config.crop_size, self._seed, step, rank, self._config.shuffle_buffer),
            self.train_skipped,
            batch_size=self._config.batch_size // world_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self._on_gpu(),
        )

    def val_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """Whole images, each on one process only, in the order of the shards; an empty list without `data.val`."""
        if not self._val_urls:
            return []
        rank, world_size = self._place()
        return StreamLoader(
            WholeImages(self._val_urls, self._config.max_val_images, rank, world_size),
            self.val_skipped,
            batch_size=1,
            num_workers=min(1, self._config.num_workers),
            pin_memory=self._on_gpu(),
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def _collate(deliveries: list[Delivery]) -> Delivery:
    skipped = tuple(photo for delivery in deliveries for photo in delivery.skipped)
    last = deliveries[-1]
    if last.error is not None or last.payload is None:
        return Delivery(None, skipped, last.error)
    if isinstance(last.payload, ValImage):
        return Delivery(ValImage(last.payload.name, last.payload.image[None]), skipped)
    crops = [delivery.payload for delivery in deliveries if isinstance(delivery.payload, Tensor)]
    return Delivery(torch.stack(crops).float().div_(255), skipped)


def _start_worker(worker: int) -> None:
    warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
    # A cluster or a terminal signals all processes. One that asks a run to stop is for the process that trains, which
    # needs its workers until the step is done. It ends them, if it must, with a second one.
    for number in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), _pass_over_once)


def _pass_over_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
