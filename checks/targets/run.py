# ruff: noqa: T201
"""Measures how well and how fast files meet a size or a rate that is asked for: `make targets`.

    python -m checks.targets.run joint-psnr --images data/kodak --out results/targets.json

Every image is coded with each target, with a search and without. The time is compared with that of coding the same
image at the level that the target led to, without a target.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch

from checks.images import add_kodak_images, chosen_images
from jahp_pl.codec.bitstream import LEVEL_STEPS, unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.files import write_json
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.model_io.load import load_codec

TARGETS: tuple[dict[str, Any], ...] = ({"size": 30_000}, {"bpp": 0.3})
EFFORTS = (0, 1)


class Met(NamedTuple):
    """How one target was met over a set of images."""

    target: str
    """Option of `jahp compress` and its value, e.g. "--size 30000"."""
    effort: int
    smallest: float
    """Smallest ratio of a file's size to the size asked for."""
    mean: float
    largest: float
    time_ratio: float
    """Median ratio of the time with the target to the time without one."""


def measure(codec: Codec, images: list[Any], target: dict[str, Any], effort: int) -> Met:
    """Code all images, (H, W, 3) uint8 arrays, with one target."""
    ratios, times = [], []
    ((name, value),) = target.items()
    for image in images:
        height, width = image.shape[:2]
        start = time.perf_counter()
        data = codec.compress(image, **target, effort=effort)
        middle = time.perf_counter()
        level = unpack(data)[0].level
        assert level is not None
        quality = 1 + 99 * codec.model.config.share_of(level / LEVEL_STEPS)
        plain_start = time.perf_counter()
        codec.compress(image, quality=quality, effort=effort)
        end = time.perf_counter()
        ratios.append(len(data) / (value if name == "size" else value * height * width / 8))
        times.append((middle - start) / (end - plain_start))
    return Met(f"--{name} {value}", effort, min(ratios), fmean(ratios), max(ratios), median(times))


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a bundled model's name, an export, a run or a checkpoint; of variable rate")
    add_kodak_images(parser)
    parser.add_argument("--out", type=Path, help="result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    codec = load_codec(arguments.model)
    images = [decode_rgb(one.source) for one in chosen_images(arguments)]
    codec.compress(images[0])  # the first call prepares tables
    results = []
    print("target           effort   size / target: least    mean    most   time / plain")
    for effort in EFFORTS:
        for target in TARGETS:
            one = measure(codec, images, target, effort)
            results.append(one)
            sizes = f"{one.smallest:22.4f}  {one.mean:.4f}  {one.largest:.4f}"
            print(f"{one.target:<16} {one.effort:6}   {sizes}   {one.time_ratio:12.2f}", flush=True)
    if arguments.out is not None:
        content = {"provenance": provenance(), "model": arguments.model, "targets": [one._asdict() for one in results]}
        write_json(arguments.out, content)


if __name__ == "__main__":
    main()
