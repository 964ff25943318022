"""Photographs and archives of them, what shards hold, and streams of crops from shards."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jahp_pl.data.pipeline import CountedSample, CropOptions, CropStream, StreamSeed, ValImage
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shard_reader import ShardReader
from jahp_pl.data.shards import write_shards
from tests.support import ROOT

PHOTOS = ROOT / "data" / "photos"
SMALL = ShardOptions(min_side=32)


def photo_bytes(name: str) -> bytes:
    """Read the JPEG of a bundled photograph."""
    return next(PHOTOS.glob(f"*/{name}.jpg")).read_bytes()


def noise_photo(seed: int = 0, width: int = 80, height: int = 48) -> Image.Image:
    """Draw an RGB image of random levels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pack(path: Path, files: dict[str, bytes]) -> str:
    """Write a tar file as any other tool would, and return its path."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def members(out: Path) -> dict[str, bytes]:
    """Map the name of every member of every shard to its content, in order."""
    found = {}
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for info in tar:
                content = tar.extractfile(info)
                assert content is not None
                found[info.name] = content.read()
    return found


def write_val_shards(tmp_path: Path, count: int = 7) -> str:
    """Write p0.png, p1.png, ... to `tmp_path`/in and, in this order, to shards of three; return the shards' folder."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
    out = tmp_path / "val"
    write_shards([folder], out, ShardOptions(min_side=16, shuffle=False, shard_samples=3))
    return str(out)


def stream(
    urls: list[str],
    crop: int = 64,
    seed: int = 0,
    step: int = 0,
    rank: int = 0,
    buffer: int = 20,
    timeout: float = 30,
    **cuts: int,
) -> CropStream:
    """Create an endless stream of crops; `cuts` are further `CropOptions`."""
    return CropStream(urls, CropOptions(crop, **cuts), StreamSeed(seed, step, rank), buffer, ShardReader(timeout))


def take(crops: CropStream, count: int) -> list[CountedSample]:
    """Draw samples, fewer than `count` if the stream ends in an error."""
    return list(itertools.islice(crops, count))


def same(a: list[CountedSample], b: list[CountedSample]) -> bool:
    """Check crops for equality to the last bit."""
    return all(torch.equal(x.data, y.data) for x, y in zip(a, b, strict=True))  # type: ignore[arg-type]


def names(samples: list[CountedSample]) -> list[str]:
    """List the names of validation images."""
    return [d.data.name for d in samples if isinstance(d.data, ValImage)]
