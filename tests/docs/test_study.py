"""docs/study.md tells what the committed results hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from jahp_pl.report.comparison import compare
from jahp_pl.report.read_results import read_curves

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "study.md").read_text()
TABLE = r"^\| against the ([a-z &]+), cubic \|.*\n\|[-:|]+\n((?:\|.*\n)+)"
RECIPE = re.findall(r"^\|.*\(\.\./(results/study/recipe/\w+\.json)\)\) \| (.*) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("path", "cells"), RECIPE)
def test_the_table_of_the_recipe_is_what_was_measured(path: str, cells: str) -> None:
    content = json.loads((ROOT / path).read_text())
    training, mean = content["provenance"]["training"], content["mean"]
    weight = training["loss"]["lmbda"] * 255**2
    objective = fmean(row["file_bpp"] + weight * 10 ** (-row["file_psnr"] / 10) for row in content["images"])
    assert cells == f"{training['step']} | {mean['file_bpp']:.4f} | {mean['file_psnr']:.2f} | {objective:.4f}"
    assert len(content["images"]) == 24


def test_the_table_of_the_recipe_leaves_nothing_out() -> None:
    assert {path for path, _ in RECIPE} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "results" / "study" / "recipe").glob("*.json")
    }


def test_the_tables_of_rungs_and_mixtures_are_what_was_measured() -> None:
    curves = {curve.title.lower(): curve for curve in read_curves(sorted((ROOT / "results" / "study").glob("*.json")))}
    told = set()
    for anchor, body in re.findall(TABLE, PAGE, re.MULTILINE):
        for line in body.splitlines():
            title, percent, spread, *rates = line.strip("| ").split(" | ")
            title = title.lower()
            compared = compare(curves[anchor], curves[title], "psnr")
            assert compared.percent["cubic"] is not None
            assert percent == f"{compared.percent['cubic']:+.2f} %"
            assert spread == ("one" if compared.spread is None else "{:+.2f} to {:+.2f}".format(*compared.spread))
            assert rates == [f"{point.mean.bpp:.4f}" for point in curves[title].points]
            told |= {anchor, title}
    assert told == set(curves)
