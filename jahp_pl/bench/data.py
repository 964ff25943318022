"""Measures the crops per second from shards, and from a plain loader of image files for comparison.

Speeds per core use processor time, so that other programs on the machine have little effect; speeds with workers use
wall time. The cases alternate within each round; the results are medians over rounds.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jahp_pl.addresses import is_remote
from jahp_pl.bench.training import count_flops
from jahp_pl.config import Config, DataConfig
from jahp_pl.data.index import DataError
from jahp_pl.data.module import StreamLoader
from jahp_pl.data.pipeline import DECODED_BYTES, CropOptions, CropStream, StreamSeed
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.data.skip_counts import SkipCounts
from jahp_pl.data.sources import find_photos
from jahp_pl.data.urls import expand_shards
from jahp_pl.images.io import decode_rgb, image_size, load_rgb
from jahp_pl.images.writing import encode_rgb

_PREFETCH = 2


class PlainLoader(Dataset[Tensor]):
    """The usual alternative to shards: a folder of image files, each of which is decoded in full for one random crop.

    Args:
        files: image files at least as large as a crop.
        size: side of the crops in pixels.
    """

    def __init__(self, files: Sequence[Path], size: int) -> None:
        self._files, self._size = list(files), size

    def __len__(self) -> int:
        return 1_000_000  # more than any measurement uses

    def __getitem__(self, index: int) -> Tensor:
        number, top, left, flip = torch.randint(2**31, (4,)).tolist()
        with Image.open(self._files[number % len(self._files)]) as image:
            rgb = np.asarray(image.convert("RGB"))
        top, left = top % (rgb.shape[0] - self._size + 1), left % (rgb.shape[1] - self._size + 1)
        crop = rgb[top : top + self._size, left : left + self._size]
        crop = crop[:, ::-1] if flip % 2 else crop
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float().div_(255)


class LoadingCase(NamedTuple):
    """One way to load crops."""

    name: str
    make: Callable[[int], Iterator[Any]]
    """Creates an iterator of batches for a number of workers."""
    decode_seconds: Callable[[], float] | None
    """Measures the processor seconds of decoding per crop; None if decoding cannot be separated."""


class LoadingSpeed(NamedTuple):
    """Median speeds of a case."""

    name: str
    per_core: float
    """Crops per second of processor time."""
    with_workers: float
    """Crops per second of wall time, with `data.num_workers` processes."""
    decode_share: float | None
    """Share of processor time spent on decoding, from 0 to 1; None if decoding cannot be separated."""
    worker_mib: float | None
    """Private memory of the largest worker in MiB; None if the system does not report it."""


def make_cases(config: DataConfig, images: Sequence[Path], folder: Path) -> list[LoadingCase]:
    """Create all cases to compare, from the same photographs.

    Args:
        config: settings of crops, batches and workers; if it names shards, these are a case too.
        images: image files.
        folder: folder in which shards and lossless files are created.

    Raises:
        DataError: if no photograph is as large as a crop.
        ImageError: if a file is not an image.
    """
    files = [image for image in images if min(image_size(image)) >= config.crop_size]
    if not files:
        first = images[0] if len(images) == 1 else f"{images[0]} and {len(images) - 1} more"
        raise DataError(f"{first}: no photograph is as large as data.crop_size={config.crop_size}; lower it")
    lossless = folder / "png"
    lossless.mkdir()
    for number, file in enumerate(files):
        (lossless / f"{number:06d}.png").write_bytes(encode_rgb(decode_rgb(file), ".png"))
    options = ShardOptions(min_side=config.crop_size, shard_samples=50)
    write_shards(files, folder / "jpeg_shards", options)
    write_shards([lossless], folder / "lossless_shards", options)
    cases = [
        _plain_case("plain loader, original files", config, files),
        _plain_case("plain loader, PNG files", config, sorted(lossless.iterdir())),
        _stream_case("JPEG shards", config, [str(folder / "jpeg_shards")]),
        _stream_case("JPEG shards, one crop per photograph", config, [str(folder / "jpeg_shards")], per_photo=1),
        _stream_case(
            "JPEG shards, photographs kept decoded",
            config,
            [str(folder / "jpeg_shards")],
            decoded_bytes=DECODED_BYTES,
        ),
        _stream_case("lossless shards", config, [str(folder / "lossless_shards")]),
    ]
    return cases + ([_stream_case("shards of data.train", config, config.train)] if config.train else [])


def _plain_case(name: str, config: DataConfig, files: Sequence[Path]) -> LoadingCase:
    def make(workers: int) -> Iterator[Any]:
        dataset = PlainLoader(files, config.crop_size)
        return iter(DataLoader(dataset, config.batch_size, num_workers=workers, prefetch_factor=_prefetch(workers)))

    def decode() -> float:
        for file in files:
            with Image.open(file) as image:
                np.asarray(image.convert("RGB"))
        return len(files)

    return LoadingCase(name, make, lambda: _seconds_per_item(decode))


def _stream_case(
    name: str, config: DataConfig, entries: Sequence[str], per_photo: int | None = None, decoded_bytes: int = 0
) -> LoadingCase:
    """Create a case with shards; by default no decoded photographs are cached, as if the corpus exceeded the cache."""
    urls = expand_shards(entries, "data.train", config.timeout).urls
    crops = CropOptions(config.crop_size, per_photo or config.crops_per_photo, config.batch_size, decoded_bytes)

    def make(workers: int) -> Iterator[Any]:
        stream = CropStream(urls, crops, StreamSeed(), config.shuffle_buffer)
        return iter(
            StreamLoader(
                stream, SkipCounts(), batch_size=config.batch_size, num_workers=workers,
                prefetch_factor=_prefetch(workers),
            )
        )  # fmt: skip

    def decode() -> float:
        photos = [photo for url in urls for photo in find_photos([url]).photos]
        for photo in photos:
            load_rgb(photo.read(), photo.name)
        return len(photos) * crops.per_photo

    return LoadingCase(name, make, None if decoded_bytes or is_remote(urls[0]) else lambda: _seconds_per_item(decode))


def _prefetch(workers: int) -> int | None:
    return _PREFETCH if workers else None


def _seconds_per_item(work: Callable[[], float]) -> float:
    """Measure the processor seconds per item of `work`, which returns the number of items."""
    start = time.process_time()
    count = work()
    return (time.process_time() - start) / count


def measure_loading(
    cases: Sequence[LoadingCase], config: DataConfig, num_batches: int, rounds: int
) -> Iterator[list[LoadingSpeed]]:
    """Measure every case in every round.

    Args:
        cases: result of `make_cases`.
        config: settings of batches and workers.
        num_batches: number of batches in each measurement.
        rounds: number of rounds, over which medians are taken.

    Yields:
        The medians after each round.
    """
    seen: dict[str, list[LoadingSpeed]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            per_core = _per_core(case, num_batches) * config.batch_size
            with_workers, memory = _with_workers(case, config.num_workers, num_batches)
            share = None if case.decode_seconds is None else case.decode_seconds() * per_core
            seen[case.name].append(LoadingSpeed(case.name, per_core, with_workers * config.batch_size, share, memory))
        yield [_median(rows) for rows in seen.values()]


def _per_core(case: LoadingCase, num_batches: int) -> float:
    batches = case.make(0)
    next(batches)
    start = time.process_time()
    for _ in itertools.islice(batches, num_batches):
        pass
    return num_batches / (time.process_time() - start)


def _with_workers(case: LoadingCase, workers: int, num_batches: int) -> tuple[float, float | None]:
    batches = case.make(workers)
    for _ in itertools.islice(batches, 1 + 2 * _PREFETCH * workers):  # batches that were prepared during the start
        pass
    start = time.perf_counter()
    for _ in itertools.islice(batches, num_batches):
        pass
    speed = num_batches / (time.perf_counter() - start)
    return speed, _worker_mib()


def _worker_mib() -> float | None:
    """Return the private memory of the largest child process in MiB."""
    sizes = []
    for rollup in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            parent = (rollup.parent / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                sizes.append(
                    sum(int(line.split()[1]) for line in rollup.read_text().splitlines() if line.startswith("Private_"))
                )
        except OSError:
            continue
    return max(sizes) / 1024 if sizes else None


def _median(rows: Sequence[LoadingSpeed]) -> LoadingSpeed:
    def of(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    name, per_core, with_workers, shares, memory = zip(*rows, strict=True)
    return LoadingSpeed(name[0], median(per_core), median(with_workers), of(shares), of(memory))


def loading_table(rows: Sequence[LoadingSpeed]) -> str:
    """Format the results as text for a terminal, with ratios to the first row."""
    lines = [
        f"{'crops per second':42} {'one core':>9} {'ratio':>6} {'workers':>9} {'ratio':>6} {'decode':>7} {'worker':>9}"
    ]
    for row in rows:
        ratios = row.per_core / rows[0].per_core, row.with_workers / rows[0].with_workers
        share = "" if row.decode_share is None else f"{row.decode_share:.0%}"
        memory = "" if row.worker_mib is None else f"{row.worker_mib:.0f} MiB"
        figures = f"{row.per_core:9.0f} {ratios[0]:6.2f} {row.with_workers:9.0f} {ratios[1]:6.2f}"
        lines.append(f"{row.name:42} {figures} {share:>7} {memory:>9}")
    return "\n".join(lines)


H200_FLOPS = 989e12
"""Dense bfloat16 operations per second from NVIDIA's data sheet; sparse matrices would double it."""
UTILIZATION = 0.3
"""Share of this peak that the convolutions of training reach; assumed, not measured."""


class RequiredSpeed(NamedTuple):
    """Loading speed that one GPU needs."""

    flops_per_crop: float
    """Floating-point operations per crop in one training step, in convolutions and matrix products, forward and
    backward."""
    crops_per_second: float
    """Crops per second that an H200 trains on at `UTILIZATION` of its peak."""


def required_speed(config: Config) -> RequiredSpeed:
    """Compute how many crops per second an H200 would need for this configuration."""
    flops = count_flops(config)
    return RequiredSpeed(flops, UTILIZATION * H200_FLOPS / flops)
