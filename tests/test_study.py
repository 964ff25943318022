"""docs/study.md tells what the committed results hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from jahp_pl.evaluation.comparison import compare
from jahp_pl.evaluation.curves import read_curves

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "study.md").read_text()
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


def test_the_bd_rates_of_the_first_ladder_are_what_was_measured() -> None:
    curves = {curve.title.lower(): curve for curve in read_curves([ROOT / "results" / "study" / "crops_128"])}
    rows = re.findall(r"^\| ([a-z& ]+) \| (-[\d.]+) % \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for title, percent in rows:
        compared = compare(curves["scale hyperprior"], curves[title], "psnr").percent["cubic"]
        assert compared is not None
        assert f"{compared:.2f}" == percent


def test_the_ladder_is_what_was_measured() -> None:
    curves = {curve.title.lower(): curve for curve in read_curves(sorted((ROOT / "results" / "study").glob("*.json")))}
    rows = re.findall(r"^\| ([a-z& ]+) \| ([-+][\d.]+) % \| (.*) \|$", PAGE, re.MULTILINE)
    assert {title for title, _, _ in rows} == set(curves) - {"scale hyperprior"}
    for title, percent, rates in rows:
        compared = compare(curves["scale hyperprior"], curves[title], "psnr").percent["cubic"]
        assert compared is not None
        assert f"{compared:+.2f}" == percent
        assert [f"{point.mean.bpp:.4f}" for point in curves[title].points] == rates.split(" | ")


def test_what_chance_does_is_what_was_measured() -> None:
    rows = re.findall(r"^\| ([a-z& ]+) \| (0\.\d{4}) \| (0\.\d{4})? \| (0\.\d{4}) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    rungs = {"scale": "scale_hyperprior", "mean & scale": "mean_scale_hyperprior", "context only": "context"}
    for title, *rates in rows:
        name = f"{rungs.get(title, title)}-gaussian1-0.0067-1.json"
        for folder, rate in zip(("study/photographs_36", "study/one_crop", "study"), rates, strict=True):
            path = ROOT / "results" / folder / name
            assert path.exists() == bool(rate)
            if rate:
                assert f"{json.loads(path.read_text())['mean']['file_bpp']:.4f}" == rate
