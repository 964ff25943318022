"""`jahp classical`: measures classical codecs on images. Heavy imports happen inside the functions."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jahp_pl.cli import output
from jahp_pl.cli.options import add_force, add_images, add_limit, add_output, check_results_path, command, num_threads
from jahp_pl.text import count_of

CLASSICAL = (
    *("jpeg", "jpeg-plain", "jpeg444", "jpeg2000", "jpeg2000-53", "webp", "avif", "avif444"),
    *("hevc", "hevc444", "jxl", "vvc"),
)
"""Names of `evaluation.classical.CODECS`, repeated here so that the parser need not import that module."""


def classical(arguments: argparse.Namespace) -> None:
    """Measure classical codecs at several qualities."""
    import torch

    from jahp_pl.evaluation.classical import CODECS
    from jahp_pl.evaluation.classical_curves import measure_curves
    from jahp_pl.evaluation.image_set import find_originals
    from jahp_pl.measurement.provenance import provenance

    check_results_path(arguments.output)
    torch.set_num_threads(arguments.threads)
    images = find_originals(arguments.images, arguments.limit)
    names = list(dict.fromkeys(arguments.codec))
    total = sum(len(CODECS[name].curve_qualities) for name in names)
    with output.bar(total=total, unit=" points", desc="classical") as bar:

        def progress(name: str, done: int, point: dict[str, Any]) -> None:
            mean = point["mean"]
            bar.set_postfix_str(f"{name} {mean['file_bpp']:.3f} bpp {mean['file_psnr']:.2f} dB")
            bar.update()

        origin = provenance(["jahp", *sys.argv[1:]]) | {"threads": arguments.threads}
        results = measure_curves(names, images, arguments.output, origin, arguments.force, progress)
    for curve in results["curves"]:
        if curve["name"] in names:
            first, last = curve["points"][0]["mean"], curve["points"][-1]["mean"]
            output.say(
                f"{curve['title']:12} {count_of(len(curve['points']), 'point'):>9} on "
                f"{count_of(len(images), 'image')}: {first['file_bpp']:.3f} bpp {first['file_psnr']:.2f} dB to "
                f"{last['file_bpp']:.3f} bpp {last['file_psnr']:.2f} dB"
            )
    output.say(f"\nresults  {arguments.output}")


def add_classical(subparsers: Any) -> None:
    """Add the command `classical`."""
    p = command(subparsers, "classical", classical, "measure JPEG, AVIF and other codecs at many qualities", """\
        jahp classical --codec jpeg jpeg2000 webp avif --images data/kodak -o classical.json
        jahp classical --codec hevc444 jxl vvc --images data/kodak -o modern.json""")  # fmt: skip
    p.add_argument(
        "--codec",
        nargs="+",
        action="extend",
        required=True,
        choices=CLASSICAL,
        metavar="NAME",
        help=f"{', '.join(CLASSICAL)}; 444 stands for full color resolution, jpeg-plain for the standard's Huffman "
        "tables, jpeg2000-53 for the 5/3 wavelet; hevc, jxl and vvc need `pip install 'jahp_pl[classical]'`",
    )
    add_images(p)
    add_limit(p)
    add_output(p, "R.json", "file for the results; qualities that it already has are kept, not measured again")
    add_force(p, "measure them again; the old results are kept until the new ones are complete")
    p.add_argument(
        "--threads", type=num_threads, default=1, metavar="N", help="CPU threads for MS-SSIM; the codecs use one [1]"
    )
