"""Shards -> random crops without end for training, whole images once each for validation.

    ResampledShards -> members -> shuffle buffer -> decode (cached) -> crop -> flip          training
    shards in order -> members -> this rank's and worker's share -> decode                   validation

Guarantees: the crops are a function of (seed, start step, rank, worker, number of workers) and of the shards. What is
skipped travels with the next crop, so that the process that trains knows it exactly; a stream that finds nothing it can
use ends with an error instead of searching for ever.
"""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from jahp_pl.data.images import RGB, ImageError, decode_rgb, image_size
from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.tar import ArchiveError, stream_members

_BUFFER_BYTES = 128 * 2**20
_CACHE_BYTES = 128 * 2**20
_SHUFFLE_START = 100
_MAX_SKIPPED = 1000
_MAX_SHARDS_WITHOUT_PHOTO = 10


class ValImage(NamedTuple):
    """One whole validation image."""

    name: str
    """File name inside its shard, without suffix."""
    image: Tensor
    """(3, H, W), or (1, 3, H, W) from a loader: RGB in [0, 1]."""


class Delivery(NamedTuple):
    """What a stream hands over: a payload, and what it left out on the way to it."""

    payload: Tensor | ValImage | None
    """(3, crop, crop) uint8, or a validation image; None where there was nothing more but skipped ones, or an error."""
    skipped: tuple[Skipped, ...]
    """Photographs left out since the delivery before."""
    error: str | None = None
    """Why the stream ends here. As a message, because an exception would cross the processes as a page of traceback."""


class _Photo(NamedTuple):
    name: str
    data: bytes


_Item = _Photo | Skipped


class CropStream(IterableDataset[Delivery]):
    """Random crops, flipped left to right half of the time, from shards drawn with replacement, without end.

    Two ranks, workers or start steps never share a sequence: each has its own branch of a numpy `SeedSequence`.
    """

    def __init__(
        self, urls: Sequence[str], crop_size: int, seed: int, start_step: int, rank: int, shuffle_buffer: int
    ) -> None:
        self._urls, self._crop_size, self._shuffle_buffer = list(urls), crop_size, shuffle_buffer
        self._seed = (seed, start_step, rank)
        self._passes = 0

    def __iter__(self) -> Iterator[Delivery]:
        worker = get_worker_info()
        entropy = (*self._seed, worker.id if worker else 0, self._passes)
        self._passes += 1  # a loader that is iterated again goes on with other crops
        for_shards, for_order, for_crops = np.random.SeedSequence(entropy).spawn(3)
        shard_seed = int(for_shards.generate_state(1)[0])
        order = random.Random(int(for_order.generate_state(1, np.uint64)[0]))
        pipeline = wds.DataPipeline(
            wds.ResampledShards(self._urls, deterministic=True, worker_seed=lambda: shard_seed),
            lambda sources: _read(source["url"] for source in sources),
            lambda items: _shuffle(items, self._shuffle_buffer, order),
            lambda items: _crop_all(items, self._crop_size, np.random.default_rng(for_crops)),
        )
        try:
            yield from pipeline
        except DataError as error:
            yield Delivery(None, (), str(error))


class WholeImages(IterableDataset[Delivery]):
    """Every image of the shards once over all ranks and workers, in the order of the shards; ranks take turns."""

    def __init__(self, urls: Sequence[str], max_images: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self._urls, self._max_images = list(urls), max_images
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[Delivery]:
        worker = get_worker_info()
        num_workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        # Item i is the k-th of rank i mod R and goes to its worker k mod W: asked in turn, the workers keep the order
        turn, period = self._rank + self._world_size * worker_id, self._world_size * num_workers
        skipped: list[Skipped] = []
        num_photos = 0
        try:
            for index, item in enumerate(_read(self._urls)):
                num_photos += isinstance(item, _Photo)
                if index % period == turn:
                    image = _decoded(item)
                    if isinstance(image, Skipped):
                        skipped.append(image)
                    else:
                        x = torch.from_numpy(image).permute(2, 0, 1).float().div_(255)
                        yield Delivery(ValImage(Path(item.name).stem, x), tuple(skipped))
                        skipped = []
                if num_photos == self._max_images != 0:
                    break
            if num_photos == 0:
                raise DataError(f"{self._urls[0]}: no image can be read from the validation shards; write them again")
        except DataError as error:
            yield Delivery(None, tuple(skipped), str(error))
        else:
            if skipped:
                yield Delivery(None, tuple(skipped))


def _read(urls: Iterable[str]) -> Iterator[_Item]:
    """The photographs of shards; what is left of a damaged one counts as one broken item."""
    in_vain = 0
    for url in urls:
        num_photos = 0
        try:
            for photo in _members(url):
                num_photos += 1
                yield photo
        except (ArchiveError, OSError) as error:
            in_vain = 0 if num_photos else in_vain + 1
            reason = getattr(error, "strerror", None) or str(error)
            if in_vain == _MAX_SHARDS_WITHOUT_PHOTO:
                raise DataError(f"{url}: no photograph in {in_vain} shards in a row, this one: {reason}") from None
            yield Skipped(url, "broken", reason)
        else:
            in_vain = 0
            if num_photos == 0:
                raise DataError(
                    f"{url}: this shard holds no photographs; remove it or write it again with `jahp shards`"
                )


def _members(url: str) -> Iterator[_Photo]:
    stream = wds.gopen(url)
    try:
        for member in stream_members(stream):
            yield _Photo(f"{url}/{member.name}", member.data)
    except ArchiveError as damage:
        try:
            stream.close()
        except OSError:  # a command that failed explains the damage better
            raise ArchiveError(f"the download or command failed; {damage}") from None
        raise
    finally:
        with contextlib.suppress(OSError):  # of a command that we stopped before its end
            stream.close()


def _shuffle(items: Iterable[_Item], capacity: int, rng: random.Random) -> Iterator[_Item]:
    """Random items from a buffer that fills up while the first ones leave; bounded in items and in bytes."""
    buffer: list[_Item] = []
    num_bytes = 0
    for count, item in enumerate(items):
        buffer.append(item)
        num_bytes += _num_bytes(item)
        while len(buffer) >= min(capacity, _SHUFFLE_START + count // 2) or num_bytes > _BUFFER_BYTES:
            chosen = rng.randrange(len(buffer))
            buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
            num_bytes -= _num_bytes(buffer[-1])
            yield buffer.pop()


def _num_bytes(item: _Item) -> int:
    return len(item.data) if isinstance(item, _Photo) else 0


def _crop_all(items: Iterable[_Item], size: int, rng: np.random.Generator) -> Iterator[Delivery]:
    decode = _Cache(lambda item: _decoded(item, min_side=size))
    skipped: list[Skipped] = []
    for item in items:
        rgb = decode(item)
        if isinstance(rgb, Skipped):
            skipped.append(rgb)
            if len(skipped) == _MAX_SKIPPED:
                raise DataError(_nothing_usable(skipped, size))
            continue
        top, left = (int(rng.integers(side - size + 1)) for side in rgb.shape[:2])
        crop = rgb[top : top + size, left : left + size]
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        yield Delivery(torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))), tuple(skipped))
        skipped = []


def _decoded(item: _Item, min_side: int = 1) -> RGB | Skipped:
    if isinstance(item, Skipped):
        return item
    try:
        width, height = image_size(item.data, item.name)
        if min(width, height) < min_side:
            return Skipped(item.name, "small", f"{width}x{height}")
        return decode_rgb(item.data, item.name)
    except ImageError as error:
        return Skipped(item.name, "broken", str(error).removeprefix(f"{item.name}: "))


class _Cache:
    """The photographs decoded last, up to 128 MiB: a small corpus is decoded once instead of once per crop."""

    def __init__(self, decode: Callable[[_Item], RGB | Skipped]) -> None:
        self._decode = decode
        self._images: OrderedDict[str, RGB] = OrderedDict()
        self._num_bytes = 0

    def __call__(self, item: _Item) -> RGB | Skipped:
        if item.name in self._images:
            self._images.move_to_end(item.name)
            return self._images[item.name]
        image = self._decode(item)
        if not isinstance(image, Skipped):
            self._images[item.name] = image
            self._num_bytes += image.nbytes
            while self._num_bytes > _CACHE_BYTES:
                self._num_bytes -= self._images.popitem(last=False)[1].nbytes
        return image


def _nothing_usable(skipped: Sequence[Skipped], size: int) -> str:
    small = [photo for photo in skipped if photo.reason == "small"]
    if not small:
        last = skipped[-1]
        return (
            f"{len(skipped)} broken photographs in a row, the last {last.name}: {last.detail}; write the shards again"
        )
    return (
        f"no photograph is large enough for data.crop_size={size}: {len(small)} of {len(skipped)} in a row are smaller,"
        f" the last {small[-1].name} with {small[-1].detail}; lower data.crop_size or write shards with min_side={size}"
    )
