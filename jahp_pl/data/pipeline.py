"""Streams photographs from shards: endless random crops for training, every whole image once for validation.

    ResampledShards -> photographs -> shuffle buffer -> decode (cached) -> crops -> interleave         training
    shards in order -> photographs -> this rank's and worker's share -> decode                          validation

Guarantees: the crops are a function of (seed, start step, rank, worker, number of workers) and the shards. Skipped
photographs are delivered with the next crop, so the training process counts them exactly. A stream without a usable
photograph ends with an error instead of searching forever.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.shard_reader import DrawCounts, Item, Photo, ShardReader
from jahp_pl.data.shuffle import interleave_groups, shuffled
from jahp_pl.images.io import ImageError, image_size, load_rgb

DECODED_BYTES = 128 * 2**20
"""Bytes of decoded photographs that a stream caches, so that a small corpus is decoded once instead of once per
crop."""
_MAX_SKIPPED = 1000
"""Number of photographs skipped in a row after which a stream ends with an error."""


class ValImage(NamedTuple):
    """One whole validation image."""

    name: str
    """File name inside its shard, without suffix."""
    image: Tensor
    """(3, H, W), or (1, 3, H, W) from a loader: RGB in [0, 1]."""


class CountedSample(NamedTuple):
    """A crop or an image on its way to the training process, and what the stream skipped before it."""

    data: Tensor | ValImage | None
    """(3, crop, crop) uint8, or a validation image; None if only skipped photographs or an error follow."""
    skipped: tuple[Skipped, ...]
    """Photographs skipped since the previous sample."""
    drawn: DrawCounts = DrawCounts()
    """Photographs and shards drawn since the previous sample."""
    error: str | None = None
    """Why the stream ends here; None if it goes on. An exception would reach the other process as a long traceback."""


class CropOptions(NamedTuple):
    """Size, number and spacing of the crops that are cut from photographs."""

    size: int
    """Side in pixels."""
    per_photo: int = 1
    """Crops per photograph each time it is drawn."""
    distance: int = 1
    """Two crops of one draw are more than this many crops apart, e.g. in different batches."""
    decoded_bytes: int = DECODED_BYTES
    """Bytes of decoded photographs to cache."""


class StreamSeed(NamedTuple):
    """What determines the random choices of a stream of crops: streams that differ in any of these are independent."""

    seed: int = 0
    start_step: int = 0
    """Optimizer step at which the stream starts."""
    rank: int = 0
    """Number of this training process, from 0."""


class CropStream(IterableDataset[CountedSample]):
    """Endless stream of random crops, half of them flipped left to right, from shards drawn with replacement.

    Two ranks, workers or start steps never share a random sequence: each has its own branch of a numpy `SeedSequence`.

    Args:
        urls: paths and addresses of the shards.
        crops: how to cut crops.
        seed: seed of all random choices.
        shuffle_buffer: maximum number of photographs in the shuffle buffer.
        reader: reads the shards; None for one without cache or index.
    """

    def __init__(
        self,
        urls: Sequence[str],
        crops: CropOptions,
        seed: StreamSeed,
        shuffle_buffer: int,
        reader: ShardReader | None = None,
    ) -> None:
        self._urls, self._crops, self._shuffle_buffer = list(urls), crops, shuffle_buffer
        self._seed, self._reader = seed, reader or ShardReader()
        self._passes = 0

    def __iter__(self) -> Iterator[CountedSample]:
        worker = get_worker_info()
        entropy = (*self._seed, worker.id if worker else 0, self._passes)
        self._passes += 1  # iterating again yields other crops
        for_shards, for_order, for_crops = np.random.SeedSequence(entropy).spawn(3)
        shard_seed = int(for_shards.generate_state(1)[0])
        order = random.Random(int(for_order.generate_state(1, np.uint64)[0]))
        counts = _StreamCounts(self._reader)
        pipeline = wds.DataPipeline(
            wds.ResampledShards(self._urls, deterministic=True, worker_seed=lambda: shard_seed),
            lambda sources: self._reader.read(source["url"] for source in sources),
            lambda items: shuffled(items, self._shuffle_buffer, order),
            lambda items: _crop_all(items, self._crops, np.random.default_rng(for_crops), counts),
            lambda groups: interleave_groups(groups, self._crops.per_photo, self._crops.distance),
        )
        try:
            for crop in pipeline:
                yield CountedSample(crop, *counts.take())
        except DataError as error:
            yield CountedSample(None, *counts.take(), error=str(error))


class WholeImages(IterableDataset[CountedSample]):
    """Stream of whole images: all ranks and workers together yield each image of the shards once, in the order of the
    shards; ranks take turns.

    Every worker reads every shard but only decodes its own images, so any number of shards suits any number of ranks.

    Args:
        urls: paths and addresses of the shards.
        max_images: maximum number of images over all ranks; 0 for all.
        rank: number of this training process, from 0.
        world_size: number of training processes.
        reader: reads the shards; None for one without cache or index.
    """

    def __init__(
        self,
        urls: Sequence[str],
        max_images: int = 0,
        rank: int = 0,
        world_size: int = 1,
        reader: ShardReader | None = None,
    ) -> None:
        self._urls, self._max_images = list(urls), max_images
        self._rank, self._world_size, self._reader = rank, world_size, reader or ShardReader()

    def __iter__(self) -> Iterator[CountedSample]:
        worker = get_worker_info()
        num_workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        # Image i goes to rank i mod R; the k-th image of a rank goes to its worker k mod W, which keeps the order.
        turn, period = self._rank + self._world_size * worker_id, self._world_size * num_workers
        counts = _StreamCounts(self._reader)
        num_photos = 0
        try:
            for index, item in enumerate(self._reader.read(self._urls)):
                num_photos += isinstance(item, Photo)
                if index % period == turn:
                    image = counts.count(_decoded(item))
                    if image is not None:
                        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
                        yield CountedSample(ValImage(Path(item.name).stem, x), *counts.take())
                if num_photos == self._max_images != 0:
                    break
            if num_photos == 0:
                raise DataError(f"{self._urls[0]}: no validation shard has a readable image; write the shards again")
        except DataError as error:
            yield CountedSample(None, *counts.take(), error=str(error))
        else:
            if counts.skipped:
                yield CountedSample(None, *counts.take())


class _StreamCounts:
    """Counts what was drawn and skipped since the last sample."""

    def __init__(self, reader: ShardReader) -> None:
        self.skipped: list[Skipped] = []
        self._reader, self._num_photos = reader, 0

    def count(self, image: Image.Image | Skipped) -> Image.Image | None:
        """Count one photograph; return None if it was skipped."""
        self._num_photos += 1
        if isinstance(image, Skipped):
            self.skipped.append(image)
            return None
        return image

    def take(self) -> tuple[tuple[Skipped, ...], DrawCounts]:
        """Return the counts and reset them."""
        skipped, drawn = tuple(self.skipped), self._reader.take_counts()._replace(photos=self._num_photos)
        self.skipped, self._num_photos = [], 0
        return skipped, drawn


def _crop_all(
    items: Iterable[Item], crops: CropOptions, rng: np.random.Generator, counts: _StreamCounts
) -> Iterator[tuple[Tensor, ...]]:
    """Decode photographs, count them, and yield the crops of each usable one."""
    decode = _CachedDecoder(lambda item: _decoded(item, min_side=crops.size), crops.decoded_bytes)
    unusable: list[Skipped] = []
    for item in items:
        decoded = decode(item)
        image = counts.count(decoded)
        if image is not None:
            unusable = []
            yield tuple(_cut(image, crops.size, rng) for _ in range(crops.per_photo))
        elif isinstance(decoded, Skipped):
            unusable.append(decoded)
            if len(unusable) == _MAX_SKIPPED:
                raise DataError(_describe_unusable(unusable, crops.size))


def _cut(image: Image.Image, size: int, rng: np.random.Generator) -> Tensor:
    """Cut one crop, (3, size, size) uint8; only its pixels are copied out of Pillow."""
    top, left = (int(rng.integers(side - size + 1)) for side in (image.height, image.width))
    crop = np.asarray(image.crop((left, top, left + size, top + size)))
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))


def _decoded(item: Item, min_side: int = 1) -> Image.Image | Skipped:
    """Decode a photograph, or return why it is skipped."""
    if isinstance(item, Skipped):
        return item
    try:
        width, height = image_size(item.data, item.name)
        if min(width, height) < min_side:
            return Skipped(item.name, "small", f"{width}x{height}")
        return load_rgb(item.data, item.name)
    except ImageError as error:
        return Skipped(item.name, "broken", str(error).removeprefix(f"{item.name}: "))


class _CachedDecoder:
    """Decodes photographs, and caches the most recently used ones."""

    def __init__(self, decode: Callable[[Item], Image.Image | Skipped], max_bytes: int) -> None:
        self._decode, self._max_bytes = decode, max_bytes
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._num_bytes = 0

    def __call__(self, item: Item) -> Image.Image | Skipped:
        if item.name in self._images:
            self._images.move_to_end(item.name)
            return self._images[item.name]
        image = self._decode(item)
        if isinstance(image, Image.Image):
            self._images[item.name] = image
            self._num_bytes += _num_bytes(image)
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= _num_bytes(self._images.popitem(last=False)[1])
        return image


def _num_bytes(image: Image.Image) -> int:
    return 4 * image.width * image.height  # Pillow stores four bytes per RGB pixel


def _describe_unusable(skipped: Sequence[Skipped], size: int) -> str:
    """Say why no photograph can be used, and what to do."""
    small = [photo for photo in skipped if photo.reason == "small"]
    if not small:
        last = skipped[-1]
        return f"{len(skipped)} broken photographs in a row, the last {last.name}: {last.detail}; write them again"
    return (
        f"no photograph is large enough for data.crop_size={size}: {len(small)} of {len(skipped)} in a row are smaller,"
        f" the last {small[-1].name} with {small[-1].detail}; lower data.crop_size or write shards with min_side={size}"
    )
