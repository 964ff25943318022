"""Makes the tables of docs/study.md and docs/short-training.md, one function per table."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import fmean
from typing import Any

from markdown_table import table
from result_files import LAMBDAS, RESULTS, ROOT

from jahp_pl.report.comparison import compare_curves
from jahp_pl.report.read_results import read_curves

RECIPE = ROOT / "configs" / "recipe"


def study_entropy_models() -> str:
    """Tabulate the BD-rates of the entropy models against the scale hyperprior."""
    return _study("Scale hyperprior", lambda title: "," not in title)


def study_mixtures() -> str:
    """Tabulate the BD-rates of mixtures against the joint model with one Gaussian."""
    return _study("Joint", lambda title: title.startswith("Joint,"))


NAMES = {"Scale hyperprior": "the scale hyperprior", "Joint": "the joint model"}


def _study(anchor: str, is_shown: Callable[[str], bool]) -> str:
    curves = {curve.title: curve for curve in read_curves(sorted((RESULTS / "study").glob("*.json")))}
    rows = []
    for title in curves.keys() - {anchor}:
        if is_shown(title):
            compared = compare_curves(curves[anchor], curves[title], "psnr")
            percent = compared.percent["cubic"]
            assert percent is not None
            seeds = "one seed" if compared.spread is None else "{:+.2f} to {:+.2f}".format(*compared.spread)
            rates = (f"{point.mean.bpp:.4f}" for point in curves[title].points)
            rows.append((percent, [title, f"{percent:+.2f} %", seeds, *rates]))
    lambdas = " | ".join(f".{10000 * lmbda:04.0f} >" for lmbda in LAMBDAS[:4])
    header = f"against {NAMES[anchor]}, cubic | BD-rate > | by seed > | {lambdas}"
    return table(header, [cells for _, cells in sorted(rows, key=lambda row: row[0])])


def recipe(date: str) -> str:
    """Tabulate the changes to the study's start that were measured on one day, best objective first."""
    rows = []
    for path in (RESULTS / "study" / "recipe").glob("*.json"):
        content = json.loads(path.read_text())
        if content["provenance"]["date"] == date:
            change = (RECIPE / f"{path.stem}.yaml").read_text().splitlines()[0].removeprefix("# ")
            link = f"[{path.stem}](../results/study/recipe/{path.name})"
            mean, loss = content["mean"], _objective(content)
            cells = f"{content['provenance']['training']['step']}|{mean['file_bpp']:.4f}|{mean['file_psnr']:.2f}"
            rows.append((loss, [f"{change} ({link})", *cells.split("|"), f"{loss:.4f}"]))
    return table(
        "change | steps > | bits per pixel > | PSNR, dB > | objective >",
        [cells for _, cells in sorted(rows, key=lambda row: row[0])],
    )


def _objective(content: Any) -> float:
    """Compute R + lambda D, averaged over images; D is the mean squared error of samples from 0 to 255."""
    weight = content["provenance"]["training"]["loss"]["lmbda"] * 255**2
    return fmean(row["file_bpp"] + weight * 10 ** (-row["file_psnr"] / 10) for row in content["images"])
