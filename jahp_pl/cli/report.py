"""`jahp report`: presents results and training curves. Heavy imports happen inside the functions."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jahp_pl.cli import output
from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.options import add_images, add_import, add_output, command, local_path
from jahp_pl.training import METRICS_FILE

if TYPE_CHECKING:
    from jahp_pl.codec.codec import Codec
    from jahp_pl.report.write import Pictures


def report(arguments: argparse.Namespace) -> None:
    """Write plots, a table and a page from results, or draw the curves of training runs."""
    if missing := [path for path in arguments.results if not path.exists()]:
        raise CommandError(f"{missing[0]}: no such file or folder; check the path")
    runs = {path: found for path in arguments.results if (found := _runs_in(path))}
    if runs:
        _report_training(arguments, runs)
    elif begun := [path for path in arguments.results if (path / "config.yaml").is_file()]:
        raise CommandError(f"{begun[0]}: is a run folder without {METRICS_FILE}; train it further first")
    elif arguments.output is None:
        raise CommandError("a report of results needs a folder to write to; name one with --output DIR")
    else:
        _report_results(arguments)


def _report_results(arguments: argparse.Namespace) -> None:
    """Write plots, a table and a page from results."""
    from jahp_pl.measurement.provenance import command_line, provenance
    from jahp_pl.report.curves import find_curve
    from jahp_pl.report.read_results import read_curves
    from jahp_pl.report.write import PAGE, TABLE, write_bd_rates, write_report

    curves = read_curves(arguments.results)
    anchor, *others = [find_curve(curves, name) for name in arguments.anchor] or [curves[0]]
    pictures = _pictures(arguments)
    facts = provenance()
    footer = f"Made by jahp_pl {facts['versions'].get('jahp_pl', '')} on {facts['date']}: "
    footer += command_line(["jahp", *sys.argv[1:]])
    with output.bar(desc="report", bar_format="{desc}: {postfix} [{elapsed}]") as bar:
        made = write_report(curves, anchor, arguments.output, arguments.title, footer, pictures, bar.set_postfix_str)
    if len(curves) > 1:
        output.say("\n".join(made.table))
    else:
        output.say(f"{anchor.title} is the only curve; a BD-rate needs another one, e.g. of `jahp classical`")
    if made.without_picture:
        output.say(
            f"\nno pictures of {', '.join(made.without_picture)}; name their models with --model, or run `jahp "
            "decompress` on the folders of files beside the results"
        )
    out: Path = arguments.output
    output.say(f"\nplots    {out}/{{{','.join(made.plots)}}}.{{png,svg}}\ntable    {out / TABLE}")
    for other, table in zip(others, tables_of(arguments.anchor[1:], out / TABLE), strict=True):
        write_bd_rates(curves, other, table)
        output.say(f"table    {table}")
    output.say(f"page     {out / PAGE}  ({made.page_bytes / 1e3:,.0f} kB, works offline)")


def tables_of(anchors: Sequence[str], first: Path) -> list[Path]:
    """Return the path of the table of each further anchor: that of the first one's table, followed by the anchor."""
    tables: list[Path] = []
    for number, name in enumerate(anchors, start=2):
        word = re.sub(r"[^0-9a-z]+", "-", name.lower()).strip("-")
        table = first.with_stem(f"{first.stem}-{word or number}")
        tables.append(table.with_stem(f"{table.stem}-{number}") if table in tables else table)
    return tables


def _pictures(arguments: argparse.Namespace) -> Pictures | None:
    """Return the settings of the comparison of pictures; None without --images.

    Raises:
        CommandError: if --rate is out of range, or options for pictures are given without --images.
    """
    from jahp_pl.report.write import Pictures

    if not 0 < arguments.rate < 24:
        raise CommandError(f"--rate {arguments.rate:g}: must be between 0 and 24 bits per pixel")
    if arguments.images is not None:
        return Pictures(arguments.images, arguments.show, arguments.rate, _codecs(arguments.model))
    if arguments.show or arguments.model:
        raise CommandError("--show and --model are for pictures; they need --images, the originals")
    return None


def _runs_in(path: Path) -> list[Path]:
    """Return the path itself if it is a run folder, otherwise the run folders in it, e.g. of a sweep."""
    if (path / METRICS_FILE).is_file():
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    return [folder for folder in inside if (folder / METRICS_FILE).is_file()]


def _report_training(arguments: argparse.Namespace, runs: dict[Path, list[Path]]) -> None:
    """Draw the training and validation curves of the runs that were found in each path."""
    from jahp_pl.report.training_curves import draw_training

    first = next(iter(runs))
    if others := [path for path in arguments.results if path not in runs]:
        raise CommandError(
            f"{others[0]}: is not a run folder, but {first} is one or has some; for training curves, give only run "
            "folders"
        )
    for path in draw_training([run for found in runs.values() for run in found], arguments.output or first):
        output.say(f"curves   {path}")


def _codecs(models: list[str]) -> dict[str, Codec]:
    """Load the codecs of models, by fingerprint in hexadecimal."""
    from jahp_pl.model_io.load import load_codec

    loaded = [load_codec(model) for model in models]
    return {codec.fingerprint.hex(): codec for codec in loaded}


def add_report(subparsers: Any) -> None:
    """Add the command `report`."""
    p = command(subparsers, "report", report, "plot results and compute BD-rates, or draw training curves", """\
        jahp report results/classical results/published/mbt2018-tfc-mse.json -o report --anchor jpeg
        jahp report results/study results/classical -o report --anchor jpeg2000 \\
            --images data/kodak --model runs/joint runs/factorized
        jahp report runs/mbt2018
        jahp report runs/ladder""")  # fmt: skip
    p.add_argument(
        "results",
        nargs="+",
        type=local_path,
        metavar="PATH",
        help="results of `jahp evaluate` and `jahp classical`, or folders of them; for training curves, run folders or "
        "a sweep's folder of them",
    )
    add_output(
        p,
        "DIR",
        "folder for report.html, bd-rates.md and plots; for training curves, folder for training.png and training.svg "
        "[the first PATH]",
        required=False,
    )
    p.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="NAME",
        help="curve that BD-rates refer to, or part of its name; each further --anchor gets a table bd-rates-NAME.md "
        "[the first curve]",
    )
    add_images(p, "original images, or folders of them; adds pictures at equal rate", required=False)
    p.add_argument(
        "--model", nargs="+", action="extend", default=[], metavar="M", help="models to make the pictures with"
    )
    p.add_argument(
        "--show", nargs="+", action="extend", default=[], metavar="NAME", help="images to show [two, chosen by rate]"
    )
    p.add_argument(
        "--rate", type=float, default=0.25, metavar="BPP", help="mean rate of the pictures, in bits per pixel [0.25]"
    )
    add_import(p)
    p.add_argument("--title", default="Rate-distortion report", help="title of the report [Rate-distortion report]")
