# ruff: noqa: T201
"""Measures how well and how fast files meet a size, a rate or a PSNR that is asked for: `make targets`.

    python -m checks.targets.run joint-psnr --images data/kodak --output results/targets.json

Every image is coded with each target, with a search and without. The time is compared with that of coding the same
image at the level that the target led to, without a target.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

import torch

from checks.images import chosen_images, parse_model_and_images
from jahp_pl.codec.arrays import Samples
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.targets import Target
from jahp_pl.files.atomic import write_json
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.model_io.load import load_codec

TARGETS = (Target(size=30_000), Target(bpp=0.3), Target(psnr=30.0))
EFFORTS = (0, 1)


class Met(NamedTuple):
    """How one target was met over a set of images."""

    target: str
    """Option of `jahp compress` and its value, e.g. "--size 30000"."""
    effort: int
    smallest: float
    """Smallest ratio of what a file reaches, in bytes, bits per pixel or dB, to what was asked for."""
    mean: float
    largest: float
    time_ratio: float
    """Median ratio of the time with the target to the time without one."""


def measure_target(codec: Codec, images: Sequence[Samples], target: Target, effort: int) -> Met:
    """Code all images, (H, W, 3) uint8 arrays, with one target."""
    ((name, value),) = ((name, value) for name, value in dataclasses.asdict(target).items() if value is not None)
    ratios, times = [], []
    for image in images:
        start = time.perf_counter()
        encoded = codec.encode(image, target, effort=effort)
        middle = time.perf_counter()
        codec.encode(image, Target(level=encoded.level), effort=effort)
        end = time.perf_counter()
        num_bytes = len(encoded.data)
        reached = {"size": num_bytes, "bpp": 8 * num_bytes / (image.size / 3), "psnr": encoded.psnr}
        ratios.append(reached[name] / value)
        times.append((middle - start) / (end - middle))
    return Met(f"--{name} {value:g}", effort, min(ratios), fmean(ratios), max(ratios), median(times))


def main() -> None:
    """Measure, print a table and write it."""
    arguments = parse_model_and_images(__doc__)
    torch.set_num_threads(1)
    codec = load_codec(arguments.model)
    images = [decode_rgb(one.source) for one in chosen_images(arguments)]
    codec.compress(images[0])  # the first call prepares tables
    results = []
    print("target           effort   reached / target: least  mean    most   time / plain")
    for effort in EFFORTS:
        for target in TARGETS:
            one = measure_target(codec, images, target, effort)
            results.append(one)
            sizes = f"{one.smallest:22.4f}  {one.mean:.4f}  {one.largest:.4f}"
            print(f"{one.target:<16} {one.effort:6}   {sizes}   {one.time_ratio:12.2f}", flush=True)
    if arguments.output is not None:
        content = {"provenance": provenance(), "model": arguments.model, "targets": [one._asdict() for one in results]}
        write_json(arguments.output, content)


if __name__ == "__main__":
    main()
