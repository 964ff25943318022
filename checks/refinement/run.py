# ruff: noqa: T201
"""Measures the gain of each part of the encoder's search: `make refinement-ablation`.

    python -m checks.refinement.run --images data/kodak --limit 3 --out results/refinement/ablation.json

Gains are BD-rates against plain rounding, with the bundled model at four qualities. Rates are those of whole files,
header included; quality is that of the 8-bit images; curves run through the means over the images at each quality.
Times are CPU seconds of the search alone, for one image.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from checks.images import add_kodak_images, chosen_images
from jahp_pl.codec import refinement
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latent_search import Search
from jahp_pl.codec.targets import Target
from jahp_pl.images.io import decode_rgb
from jahp_pl.model_io.load import load_codec
from jahp_pl.quality import decibels, ms_ssim_8bit, psnr
from jahp_pl.report.bd_rate import bd_rate

SLOW_BETAS = (0.9, 0.99)
"""Betas of Adam that are common elsewhere."""
QUALITIES = (20, 40, 60, 80)
"""Qualities of the points of each curve."""
ROWS = {
    "freeze, 10 steps": Search("freeze", 10),
    "freeze, 10 steps, squared errors alone": Search("freeze", 10, structure_share=0.0),
    "freeze, 10 steps, half of the distortion structure": Search("freeze", 10, structure_share=0.5),
    "freeze, 10 steps, Adam's betas .9 and .99": Search("freeze", 10, betas=SLOW_BETAS),
    "no freezing, 10 steps, rounded at the end": Search("freeze", 10, rate=0.1, final_rate=0.01, warm_up=1.0),
    "straight-through, 10 steps": Search("straight_through", 10, rate=0.02, final_rate=0.002, betas=SLOW_BETAS),
    "SGA, 10 steps": Search("sga", 10, rate=0.05, final_rate=0.005, betas=SLOW_BETAS),
    "freeze, 5 steps": Search("freeze", 5, rate=0.15),
    "freeze, 20 steps": Search("freeze", 20),
    "straight-through, 20 steps": Search("straight_through", 20, rate=0.02, final_rate=0.001, betas=SLOW_BETAS),
    "SGA, 20 steps": Search("sga", 20, rate=0.05, final_rate=0.001, betas=SLOW_BETAS),
}


class Point(NamedTuple):
    """Means over the images at one quality."""

    bpp: float
    psnr: float
    ms_ssim_db: float
    seconds: float
    """CPU seconds for one image."""


def measure(codec: Codec, target: Target, images: list[torch.Tensor], search: Search | None) -> Point:
    """Code all images with one search, which replaces the codec's first effort."""
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
        rows.append((bpp, float(psnr(image[None], shown[None])), float(similarity), seconds))
    bpp, quality, similarity, seconds = np.mean(rows, axis=0).tolist()
    return Point(bpp, quality, decibels(similarity), seconds)


def compare(plain: list[Point], found: list[Point]) -> tuple[float, float]:
    """Compute BD-rates over PSNR and over MS-SSIM in dB, in percent."""
    by_psnr = bd_rate([(p.bpp, p.psnr) for p in plain], [(p.bpp, p.psnr) for p in found], "pchip")
    by_ms_ssim = bd_rate([(p.bpp, p.ms_ssim_db) for p in plain], [(p.bpp, p.ms_ssim_db) for p in found], "pchip")
    return by_psnr.percent, by_ms_ssim.percent


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_kodak_images(parser)
    parser.add_argument("--limit", type=int, default=3, metavar="N", help="use the first N images only [3]")
    parser.add_argument("--out", type=Path, required=True, help="result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    originals = chosen_images(arguments, arguments.limit)
    images = [torch.from_numpy(decode_rgb(one.source).copy()).permute(2, 0, 1).contiguous() for one in originals]
    codec, targets = load_codec(), [Target(quality=quality) for quality in QUALITIES]
    plain = [measure(codec, target, images, None) for target in targets]
    rows: dict[str, dict[str, object]] = {}
    for name, search in ROWS.items():
        found = [measure(codec, target, images, search) for target in targets]
        by_psnr, by_ms_ssim = compare(plain, found)
        seconds = float(np.mean([a.seconds - b.seconds for a, b in zip(found, plain, strict=True)]))
        rows[name] = {
            "psnr": by_psnr, "ms_ssim": by_ms_ssim, "seconds": seconds,
            "search": search._asdict(), "points": [point._asdict() for point in found],
        }  # fmt: skip
        print(f"{name}: {by_psnr:+.2f} % {by_ms_ssim:+.2f} % {seconds:.2f} s", flush=True)
    content = {"images": [one.name for one in originals], "plain": [p._asdict() for p in plain], "rows": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
