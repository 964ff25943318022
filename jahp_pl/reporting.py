"""What the commands classical and report do with their parsed arguments. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from jahp_pl.console import CommandError

if TYPE_CHECKING:
    from jahp_pl.codec.codec import Codec


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


def report(arguments: argparse.Namespace) -> None:
    """Results -> plots, a table and a page."""
    from tqdm import tqdm

    from jahp_pl.evaluation.curves import find_curve, read_curves
    from jahp_pl.evaluation.provenance import command_line, provenance
    from jahp_pl.evaluation.report import PAGE, TABLE, Pictures, write_report

    curves = read_curves(arguments.results)
    anchor = curves[0] if arguments.anchor is None else find_curve(curves, arguments.anchor)
    pictures = None
    if not 0 < arguments.rate < 24:
        raise CommandError(f"--rate {arguments.rate:g}: must lie between 0 and 24 bits per pixel")
    if arguments.images is not None:
        codecs = _codecs(arguments.model)
        pictures = Pictures(arguments.images, arguments.show, arguments.rate, codecs)
    elif arguments.show or arguments.model:
        raise CommandError("--show and --model are for pictures; they need --images, the folder with the originals")
    facts = provenance()
    foot = f"Made by jahp_pl {facts['versions'].get('jahp_pl', '')} on {facts['date']}: "
    foot += command_line(["jahp", *sys.argv[1:]])
    with tqdm(desc="report", leave=False, disable=None, bar_format="{desc}: {postfix} [{elapsed}]") as bar:
        made = write_report(curves, anchor, arguments.out, arguments.title, foot, pictures, bar.set_postfix_str)
    print("\n".join(made.table))
    if made.without_picture:
        print(
            f"\nno pictures of {', '.join(made.without_picture)}: give --model, or decompress the files beside results"
        )
    print(f"\nplots    {arguments.out}/{{{','.join(made.plots)}}}.{{png,svg}}\ntable    {arguments.out / TABLE}")
    print(f"page     {arguments.out / PAGE}  ({made.page_bytes / 1e6:.1f} MB, opens from disk)")


def _codecs(models: list[str]) -> dict[str, Codec]:
    from jahp_pl.export import load_codec

    loaded = [load_codec(model) for model in models]
    return {codec.fingerprint.hex(): codec for codec in loaded}
