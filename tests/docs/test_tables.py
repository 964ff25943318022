"""The tables of README.md and docs/ agree with results/."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from jahp_pl.report.read_results import read_curves
from tests.support import ROOT, pages

TABLES = runpy.run_path(str(pages.DOCS / "tables"))
NAMES = sorted(TABLES["TABLES"])


def marks(text: str) -> list[str]:
    return [found[2] for found in TABLES["MARKED"].finditer(text)]


def test_every_table_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert TABLES["main"](["--check"]) == 0, capsys.readouterr().err


def test_every_table_is_on_one_page() -> None:
    assert sorted(name for page in TABLES["pages"]() for name in marks(page.read_text())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_figure_is_noticed_and_corrected(name: str) -> None:
    page: Path = next(page for page in TABLES["pages"]() if name in marks(page.read_text()))
    text = page.read_text()
    table: str = next(found[3] for found in TABLES["MARKED"].finditer(text) if found[2] == name)
    digit = next(i for i in reversed(range(len(table))) if table[i].isdigit())
    wrong = text.replace(table, f"{table[:digit]}{(int(table[digit]) + 1) % 10}{table[digit + 1 :]}")
    assert wrong != text
    assert TABLES["updated"](wrong) == text


def test_the_study_covers_every_result() -> None:
    page, recipe = pages.read("study"), pages.read("short-training")
    for path in (ROOT / "results" / "study" / "recipe").glob("*.json"):
        assert f"(../results/study/recipe/{path.name})" in recipe
    curves = read_curves(sorted((ROOT / "results" / "study").glob("*.json")))
    shown = {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")}
    assert {curve.title for curve in curves} - shown == {"Scale hyperprior"}, "the anchor's rates are in the text"
