"""Writes a report of results to a folder: plots, a table of BD-rates and one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jahp_pl.codec.codec import Codec
from jahp_pl.files.atomic import write_atomically
from jahp_pl.report.comparison import format_bd_rate_table
from jahp_pl.report.curves import MEASURES, Curve, Measure
from jahp_pl.report.figures import draw_all
from jahp_pl.report.page import build_page
from jahp_pl.report.previews import choose_images, make_comparisons
from jahp_pl.text import encoded

PAGE, TABLE = "report.html", "bd-rates.md"


class Pictures(NamedTuple):
    """Inputs for the comparison of pictures."""

    originals: Sequence[Path]
    """The original images, or folders of them."""
    names: Sequence[str]
    """Names of the images to show, without suffix; if empty, images are chosen by rate."""
    bpp: float
    """Mean rate of the comparison, in bits per pixel."""
    codecs: Mapping[str, Codec]
    """Codecs of models by fingerprint."""


class ReportSummary(NamedTuple):
    """Summary of a written report."""

    table: list[str]
    """BD-rates over PSNR, in Markdown."""
    plots: list[str]
    """Names of the plots."""
    without_picture: list[str]
    """Titles of models that are missing from the comparison of pictures."""
    page_bytes: int
    """Size of report.html in bytes."""


def write_report(
    curves: Sequence[Curve],
    anchor: Curve,
    out: Path,
    title: str,
    footer: str,
    pictures: Pictures | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> ReportSummary:
    """Write `report.html`, `bd-rates.md` and the plots as PNG and SVG.

    Args:
        curves: result of `read_results.read_curves`.
        anchor: one of the curves, with which the others are compared.
        out: folder; existing files with these names are replaced.
        title, footer: heading and footer of the page.
        pictures: images to compare; None omits that part.
        progress: called with the name of each part before it is made.

    Raises:
        EvaluationError: if an image to show or a package of the extra `report` is missing.
        WriteError: if the disk is full.
    """
    progress("BD-rates")
    tables = _format_tables(curves, anchor)
    comparisons = []
    if pictures is not None:
        chosen = choose_images(curves, pictures.names)
        comparisons = make_comparisons(curves, pictures.originals, chosen, pictures.bpp, pictures.codecs, progress)
    progress("plots")
    plots = draw_all(curves, anchor, out)
    progress("page")
    text = encoded(build_page(curves, anchor, comparisons, title, footer))
    write_atomically(out / PAGE, text)
    _write_tables(tables, out / TABLE)
    shown = {item.curve for comparison in comparisons for item in comparison.items}
    missing = [c.title for n, c in enumerate(curves) if c.kind == "model" and n not in shown] if comparisons else []
    return ReportSummary(tables["psnr"], plots, missing, len(text))


def write_bd_rates(curves: Sequence[Curve], anchor: Curve, path: Path) -> None:
    """Write the tables of BD-rates of a report alone, for another anchor."""
    _write_tables(_format_tables(curves, anchor), path)


def _format_tables(curves: Sequence[Curve], anchor: Curve) -> dict[Measure, list[str]]:
    return {measure: format_bd_rate_table(curves, anchor, measure) for measure in MEASURES}


def _write_tables(tables: Mapping[Measure, list[str]], path: Path) -> None:
    parts = [
        f"BD-rates over {MEASURES[measure]}, log rate interpolated over dB\n\n" + "\n".join(lines)
        for measure, lines in tables.items()
    ]
    write_atomically(path, encoded("\n\n".join(parts) + "\n"))
