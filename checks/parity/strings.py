# ruff: noqa: T201
"""Codes images with CompressAI's own mbt2018 and given weights. Its strings hold round(y - mu) + mu.

    python -m checks.parity.strings WEIGHTS ROUNDS THREADS IMAGE...

This form is for `jahp bench coding --peer`. It prints one JSON object with seconds per image (median over ROUNDS, mean
over images), bits per pixel of the strings alone, and PSNR.

    python -m checks.parity.strings --to DIR IMAGE...

This form is for `checks.parity.files`. It reads DIR/weights.pt, writes a checkpoint DIR/mbt2018.pth.tar and, for each
image, the x_hat of evaluation mode, and prints a JSON list with the same figures for each image.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from checks.parity import oracle
from jahp_pl.config import model_from_dict
from jahp_pl.model_io import compressai
from jahp_pl.quality import psnr, to_uint8


class Coded(NamedTuple):
    """Measures of one image that was coded to CompressAI's strings."""

    encode: float
    """Seconds to encode."""
    decode: float
    """Seconds to decode."""
    bpp: float
    psnr: float
    """PSNR of 8-bit RGB, in dB."""


def load(stored: dict[str, Any]) -> Any:
    """Create CompressAI's model with our weights and its own tables."""
    config = model_from_dict(stored["model"])
    net = oracle.CLASSES[config.entropy_model](config.num_filters, config.num_latents).eval()
    with torch.no_grad():
        for name, tensor in compressai.rename_weights(net.state_dict()).items():
            tensor.copy_(stored["state"][name])
        _find_quantiles(net)
    net.update(force=True)
    return net


def _find_quantiles(net: Any) -> None:
    """Find by bisection what CompressAI's auxiliary loss would learn: the median of each channel's density, and the
    points beyond which 1e-9 of it lies.
    """
    bottleneck = net.entropy_bottleneck
    channels = len(bottleneck.quantiles)
    for index, target in enumerate((-bottleneck.target[2].item(), 0.0, bottleneck.target[2].item())):
        low, high = torch.full((channels, 1, 1), -1e4), torch.full((channels, 1, 1), 1e4)
        for _ in range(60):
            middle = (low + high) / 2
            below = bottleneck._logits_cumulative(middle, stop_gradient=True) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        bottleneck.quantiles[:, 0, index] = middle.flatten()


def read_image(path: str) -> Tensor:
    """Read an image as (1, 3, H, W) uint8."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]


@torch.no_grad()
def code(net: Any, image: Tensor, rounds: int) -> Coded:
    """Compress and decompress an image (1, 3, H, W) uint8 whose sides are multiples of 64."""
    x = image.float() / 255
    encode, decode = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        coded = net.compress(x)
        written = time.perf_counter()
        decoded = net.decompress(coded["strings"], coded["shape"])["x_hat"]
        encode.append(written - start)
        decode.append(time.perf_counter() - written)
    num_bytes = sum(len(string[0]) for string in coded["strings"])
    pixels = image.shape[-2] * image.shape[-1]
    return Coded(median(encode), median(decode), 8 * num_bytes / pixels, float(psnr(image, to_uint8(decoded))))


def to_folder(folder: Path, images: Sequence[str]) -> None:
    """Write the checkpoint and the reconstructions, and print the measures of each image."""
    net = load(torch.load(folder / "weights.pt", weights_only=True))
    torch.save({"epoch": 1, "state_dict": net.state_dict()}, folder / "mbt2018.pth.tar")
    rows = []
    for path in images:
        image = read_image(path)
        with torch.no_grad():
            torch.save(net(image.float() / 255)["x_hat"], folder / f"{Path(path).stem}.pt")
        rows.append(code(net, image, 1)._asdict())
    print(json.dumps(rows))


def main(weights: str, rounds: str, threads: str, *images: str) -> None:
    """Code all images, and print the mean measures."""
    torch.set_num_threads(int(threads))
    net = load(torch.load(weights, weights_only=True))
    coded = [code(net, read_image(path), int(rounds)) for path in images]
    means = {name: fmean(getattr(row, name) for row in coded) for name in Coded._fields}
    print(json.dumps({"name": "CompressAI 1.2.8 mbt2018", **means}))


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    if arguments[0] == "--to":
        to_folder(Path(arguments[1]), arguments[2:])
    else:
        main(*arguments)
