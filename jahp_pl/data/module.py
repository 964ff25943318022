"""The LightningDataModule: loaders for the streams of `pipeline`, with exact counts of skipped photographs."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from jahp_pl.config import ConfigError, DataConfig, require_type
from jahp_pl.data.cache import ShardCache
from jahp_pl.data.index import DataError
from jahp_pl.data.pipeline import CountedSample, CropOptions, CropStream, StreamSeed, ValImage, WholeImages
from jahp_pl.data.shard_reader import DrawCounts, ShardReader
from jahp_pl.data.skip_counts import SkipCounts
from jahp_pl.data.urls import Shards, expand_shards
from jahp_pl.text import count_of

_PREFETCH = 4
"""Batches that each worker prepares in advance, which evens out slow photographs."""


class StreamLoader(DataLoader[CountedSample]):
    """A DataLoader that updates the skip counts and yields only the data.

    Lightning can resume it: its state is the skip counts, and the position in the stream follows from the step.

    Args:
        stream: source of crops or whole images.
        counts: skip counts to update.
        options: options of `DataLoader`.
    """

    def __init__(self, stream: CropStream | WholeImages, counts: SkipCounts, **options: Any) -> None:
        super().__init__(stream, collate_fn=_collate, worker_init_fn=_start_worker, **options)
        self._counts = counts

    def __iter__(self) -> Iterator[Tensor | ValImage]:  # type: ignore[override]
        if isinstance(self.dataset, WholeImages):  # each validation counts separately
            self._counts.clear()
        error, samples = None, super().__iter__()
        for sample in samples:
            self._counts.add(sample.skipped, sample.drawn)
            if (error := sample.error) is not None:
                break
            if sample.data is not None:
                yield sample.data
        if error is not None:
            # The workers end with the last reference to their iterator. The traceback of the error would keep one until
            # a garbage collection, which deletes the workers' queues first and then waits 20 seconds for the workers.
            self._iterator = None
            del samples
            raise DataError(error)

    def state_dict(self) -> dict[str, int]:
        """Return the counts so far as plain numbers."""
        return {"num_broken": self._counts.num_broken, "num_small": self._counts.num_small}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue counting from these numbers."""
        self._counts.num_broken, self._counts.num_small = state["num_broken"], state["num_small"]


class ShardDataModule(lightning.LightningDataModule):
    """Lightning data module: random crops for training, whole images for validation.

    A training batch is (B, 3, crop, crop), float in [0, 1], with B = batch size / number of processes. The loader
    itself yields uint8 from 0 to 255, a quarter of the data to move between processes and to a GPU. A validation batch
    is a `ValImage` with (1, 3, H, W), float in [0, 1].

    Resuming: the stream's seed includes the optimizer step at which it starts, so a resumed run draws new crops instead
    of repeating earlier ones. The shuffle buffer starts empty.

    Args:
        config: shards, crops, batches and workers.
        seed: seed of the order and position of crops.

    Raises:
        ConfigError: if `config` is not a `DataConfig`.
        DataError: if shards are missing or empty.
    """

    def __init__(self, config: DataConfig, seed: int = 0) -> None:
        super().__init__()
        require_type(config, DataConfig, "pass the part `data` of a Config")
        self._config, self._seed = config, seed
        self._train = expand_shards(config.train, "data.train", config.timeout)
        self._val = expand_shards(config.val, "data.val", config.timeout) if config.val else Shards([], {})
        self.train_skipped = SkipCounts(max_broken_share=config.max_broken_share)
        """Skip counts of the training batches that this process has received."""
        self.val_skipped = SkipCounts()
        """Skip counts of the images that this process validated in the last validation."""

    def train_dataloader(self) -> StreamLoader:
        """Return an endless loader of training batches.

        Raises:
            ConfigError: if the batch size is not divisible by the number of processes.
        """
        rank, world_size = self._rank_and_world_size()
        if self._config.batch_size % world_size:
            raise ConfigError(
                f"data.batch_size={self._config.batch_size}: must be a multiple of the {world_size} training processes"
            )
        step = self.trainer.global_step if self.trainer is not None else 0
        workers, batch_size = self._config.num_workers, self._config.batch_size // world_size
        crops = CropOptions(self._config.crop_size, self._config.crops_per_photo, batch_size)
        num_streams = world_size * max(1, workers)
        if len(self._train.urls) < num_streams:
            rank_zero_warn(
                f"data.train: {count_of(len(self._train.urls), 'shard')} for {num_streams} workers in all processes, "
                "so several workers draw from the same few hundred photographs at a time; write more, smaller shards "
                "with `jahp shards --shard-samples`"
            )
        return StreamLoader(
            CropStream(
                self._train.urls,
                crops,
                StreamSeed(self._seed, step, rank),
                self._config.shuffle_buffer,
                self._reader(self._train),
            ),
            self.train_skipped,
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=_PREFETCH if workers else None,
            pin_memory=self._is_on_gpu(),
        )

    def val_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """Return a loader of the whole images that this process validates, in the order of the shards; [] without
        `data.val`."""
        if not self._val.urls:
            return []
        rank, world_size = self._rank_and_world_size()
        return StreamLoader(
            WholeImages(self._val.urls, self._config.max_val_images, rank, world_size, self._reader(self._val)),
            self.val_skipped,
            batch_size=1,
            num_workers=min(1, self._config.num_workers),
            pin_memory=self._is_on_gpu(),
        )

    def on_after_batch_transfer(self, batch: Tensor | ValImage, dataloader_idx: int) -> Tensor | ValImage:
        """Convert a training batch from uint8 to float in [0, 1] on the training device; keep a validation batch."""
        return batch.float().div_(255) if isinstance(batch, Tensor) else batch

    def _reader(self, shards: Shards) -> ShardReader:
        if self._config.cache_dir is None:
            return ShardReader(self._config.timeout, index_entries=shards.index_entries)
        folder = Path(os.path.expanduser(self._config.cache_dir))  # noqa: PTH111  keeps ~ of an unknown user
        cache = ShardCache(folder, self._config.cache_bytes, self._config.timeout, shards.index_entries)
        return ShardReader(self._config.timeout, cache, index_entries=shards.index_entries)

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _is_on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def _collate(samples: list[CountedSample]) -> CountedSample:
    """Join the samples of a batch into one that holds all their crops and counts."""
    skipped = tuple(photo for sample in samples for photo in sample.skipped)
    drawn = reduce(DrawCounts.plus, (sample.drawn for sample in samples))
    last = samples[-1]
    if last.error is not None or last.data is None:
        return CountedSample(None, skipped, drawn, last.error)
    if isinstance(last.data, ValImage):
        return CountedSample(ValImage(last.data.name, last.data.image[None]), skipped, drawn)
    crops = [sample.data for sample in samples if isinstance(sample.data, Tensor)]
    return CountedSample(torch.stack(crops), skipped, drawn)


def _start_worker(worker: int) -> None:
    """Prepare a data worker: silence Pillow's warnings, and ignore the first signal of each kind."""
    warnings.simplefilter("ignore")  # Pillow's warnings about odd metadata
    # A cluster or a terminal signals all processes. A first signal asks the training process to stop, which needs its
    # workers until the step is done; a second signal ends the workers.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), _ignore_once)


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
