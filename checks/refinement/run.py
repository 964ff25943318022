# ruff: noqa: T201
"""Measures the gain of each part of the encoder's search, and of each effort: `make refinement-ablation`.

    python -m checks.refinement.run --images data/kodak --every 6 --output results/refinement/ablation.json

Gains are BD-rates against plain rounding, with the bundled model at four qualities, on a square from the center of each
image. They compare the sizes of whole files, header included, with the quality of 8-bit images; each point of a curve
is a mean over the images. Times are CPU seconds of the search alone, for as many pixels as a Kodak image has.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from checks.images import add_kodak_images, chosen_images
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.search import refinement
from jahp_pl.codec.search.latent_search import Search
from jahp_pl.codec.targets import Target
from jahp_pl.evaluation.image_set import Original
from jahp_pl.files.atomic import write_json
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.model_io.load import load_codec
from jahp_pl.quality import ms_ssim_8bit, ms_ssim_to_decibels, psnr
from jahp_pl.report.bd_rate import bd_rate

SLOW_BETAS = (0.9, 0.99)
"""Betas of Adam as they are commonly chosen elsewhere."""
QUALITIES = (20, 40, 60, 80)
"""Qualities of the points of each curve."""
KODAK_PIXELS = 768 * 512
BASE = Search("freeze", 10)
PARTS = {
    "freeze, 10 steps": BASE,
    "squared errors alone": BASE._replace(structure_share=0.0),
    "half of the distortion structure": BASE._replace(structure_share=0.5),
    "Adam's betas .9 and .99": BASE._replace(betas=SLOW_BETAS),
    "Adam's moments by latent": BASE._replace(channel_share=0.0),
    "frozen at random": BASE._replace(nearness=0.0),
    "the model's own lambda": BASE._replace(lmbda_factor=1.0),
    "nothing frozen in the first 15 % of the steps": BASE._replace(warm_up=0.15),
    "no freezing, rounded at the end": BASE._replace(learning_rate=0.1, final_learning_rate=0.01, warm_up=1.0),
    "straight-through, 10 steps": Search(
        "straight_through", 10, learning_rate=0.02, final_learning_rate=0.002, betas=SLOW_BETAS, channel_share=0.0
    ),
    "SGA, 10 steps": Search(
        "sga", 10, learning_rate=0.05, final_learning_rate=0.005, betas=SLOW_BETAS, channel_share=0.0
    ),
}
"""Searches to compare. The second to the eighth each change one thing in the first."""


class Point(NamedTuple):
    """Means over the images at one quality."""

    bpp: float
    psnr: float
    ms_ssim_db: float
    seconds: float
    """CPU seconds per `KODAK_PIXELS` pixels."""


def measure_search(codec: Codec, target: Target, images: list[torch.Tensor], search: Search | None) -> Point:
    """Code all images with one search, which replaces the codec's own search of effort 1."""
    rows = []
    efforts, effort = refinement.EFFORTS, 0 if search is None else 1
    for image in images:
        start = time.process_time()
        try:
            refinement.EFFORTS = (None, search)
            encoded = codec.encode(image, target, effort=effort)
        finally:
            refinement.EFFORTS = efforts
        seconds = time.process_time() - start
        shown = codec.decompress(encoded.data)
        similarity = ms_ssim_8bit(image[None], shown[None])
        assert similarity is not None
        bpp = 8 * len(encoded.data) / (image.shape[1] * image.shape[2])
        seconds *= KODAK_PIXELS / (image.shape[1] * image.shape[2])
        rows.append((bpp, float(psnr(image[None], shown[None])), float(similarity), seconds))
    bpp, quality, similarity, seconds = np.mean(rows, axis=0).tolist()
    return Point(bpp, quality, ms_ssim_to_decibels(similarity), seconds)


def bd_rates(plain: list[Point], found: list[Point]) -> tuple[float, float]:
    """Compute BD-rates over PSNR and over MS-SSIM in dB, in percent."""
    by_psnr = bd_rate([(p.bpp, p.psnr) for p in plain], [(p.bpp, p.psnr) for p in found], "pchip")
    by_ms_ssim = bd_rate([(p.bpp, p.ms_ssim_db) for p in plain], [(p.bpp, p.ms_ssim_db) for p in found], "pchip")
    return by_psnr.percent, by_ms_ssim.percent


def square(original: Original, side: int) -> torch.Tensor:
    """Read a square from the center of an image: (3, side, side) uint8."""
    rgb = decode_rgb(original.source)
    top, left = ((length - side) // 2 for length in rgb.shape[:2])
    return torch.from_numpy(rgb[top : top + side, left : left + side].copy()).permute(2, 0, 1).contiguous()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_kodak_images(parser)
    parser.add_argument("--every", type=int, default=6, metavar="N", help="use the Nth of every N images only [6]")
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS", help="side of the squares [256]")
    parser.add_argument("--longest", type=int, default=4, metavar="EFFORT", help="measure efforts up to this one [4]")
    parser.add_argument("-o", "--output", type=Path, required=True, help="result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    originals = chosen_images(arguments)[arguments.every - 1 :: arguments.every]
    images = [square(original, arguments.side) for original in originals]
    codec, targets = load_codec(), [Target(quality=quality) for quality in QUALITIES]
    efforts = {
        f"effort {effort}: {search.method}, {search.steps} steps".replace("sga", "SGA"): search
        for effort, search in enumerate(refinement.EFFORTS[: arguments.longest + 1])
        if search is not None
    }
    plain = [measure_search(codec, target, images, None) for target in targets]
    content = provenance(["python", "-m", "checks.refinement.run", *sys.argv[1:]]) | {
        "images": [original.name for original in originals],
        "side": arguments.side,
        "fingerprint": codec.fingerprint.hex(),
        "plain": [point._asdict() for point in plain],
        "rows": {},
    }
    for name, search in (PARTS | efforts).items():
        found = [measure_search(codec, target, images, search) for target in targets]
        by_psnr, by_ms_ssim = bd_rates(plain, found)
        seconds = float(np.mean([a.seconds - b.seconds for a, b in zip(found, plain, strict=True)]))
        content["rows"][name] = {
            "psnr": by_psnr, "ms_ssim": by_ms_ssim, "seconds": seconds,
            "search": search._asdict(), "points": [point._asdict() for point in found],
        }  # fmt: skip
        print(f"{name}: {by_psnr:+.2f} % {by_ms_ssim:+.2f} % {seconds:.2f} s", flush=True)
        write_json(arguments.output, content)


if __name__ == "__main__":
    main()
