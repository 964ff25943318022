"""docs/tour.ipynb runs from a fresh kernel, and what it keeps is of such a run."""

from __future__ import annotations

import re
import runpy

import nbformat
import pytest

from tests.support import pages

PATH = pages.DOCS / "tour.ipynb"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_and_shows_what_is_kept_in_it() -> None:
    kept = nbformat.read(PATH, as_version=4)
    run = runpy.run_path(str(pages.DOCS / "run_notebook.py"))["executed"](PATH)
    assert [cell.source for cell in run.cells] == [cell.source for cell in kept.cells]
    told, shown = texts(run), texts(kept)
    assert [re.sub(r"[-\d. ]+", "#", text) for text in told] == [re.sub(r"[-\d. ]+", "#", text) for text in shown]
    assert pictures(run) == pictures(kept) == 2
    for now, then in ((told[0], shown[0]), (told[-1], shown[-1])):  # processors round differently, and training goes on
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (now, then)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.15)
    bits = [float(line.split()[-4]) for line in told[-1].splitlines()]
    assert bits[4] == pytest.approx(bits[0], rel=0.01), "the file is as long as theory says"


def test_what_is_kept_is_small_and_names_no_folder_and_no_time() -> None:
    text = PATH.read_text()
    assert len(text) < 400_000
    assert "/tmp" not in text
    assert "iopub" not in text
    assert "stderr" not in text


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    return [out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "stream"]


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)
