"""What the commands classical and report do with their parsed arguments. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def classical(arguments: argparse.Namespace) -> None:
    """Classical codecs over their ladders of qualities."""
    import torch
    from tqdm import tqdm

    from jahp_pl.evaluation.classical import CODECS
    from jahp_pl.evaluation.images import find_images
    from jahp_pl.evaluation.ladders import run_ladders
    from jahp_pl.evaluation.provenance import provenance

    torch.set_num_threads(arguments.threads)
    images = find_images(arguments.images)[: arguments.limit]
    names = list(dict.fromkeys(arguments.codec))
    total = sum(len(CODECS[name].ladder) for name in names)
    with tqdm(total=total, unit=" points", desc="classical", leave=False, disable=None) as bar:

        def progress(name: str, done: int, point: dict[str, Any]) -> None:
            mean = point["mean"]
            bar.set_postfix_str(f"{name} {mean['file_bpp']:.3f} bpp {mean['file_psnr']:.2f} dB")
            bar.update()

        facts = provenance(["jahp", *sys.argv[1:]]) | {"threads": arguments.threads}
        content = run_ladders(names, images, arguments.out, facts, arguments.force, progress)
    for curve in content["curves"]:
        if curve["name"] in names:
            first, last = curve["points"][0]["mean"], curve["points"][-1]["mean"]
            print(
                f"{curve['title']:12} {len(curve['points']):2} points on {len(images)} images: "
                f"{first['file_bpp']:.3f} bpp {first['file_psnr']:.2f} dB to "
                f"{last['file_bpp']:.3f} bpp {last['file_psnr']:.2f} dB"
            )
    print(f"\nresults  {arguments.out}")
