"""docs/tour.ipynb runs in a fresh kernel and stores the outputs of such a run."""

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
def test_the_notebook_reproduces_its_stored_outputs() -> None:
    kept = nbformat.read(PATH, as_version=4)
    run = runpy.run_path(str(pages.DOCS / "run_notebook.py"))["executed"](PATH)
    assert [cell.source for cell in run.cells] == [cell.source for cell in kept.cells]
    new, shown = texts(run), texts(kept)
    assert [re.sub(r"[-\d. ]+", "#", text) for text in new] == [re.sub(r"[-\d. ]+", "#", text) for text in shown]
    assert pictures(run) == pictures(kept) == 6
    for now, then in zip(new, shown, strict=True):
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (now, then)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02)  # processors round differently
    (rates,) = (text for text in new if text.startswith("cross-entropy"))
    bits = [float(line.split()[-4]) for line in rates.splitlines()]
    assert bits[4] == pytest.approx(bits[0], rel=0.01), "the file is as long as theory says"


def test_stored_outputs_are_small_and_without_errors() -> None:
    kept = nbformat.read(PATH, as_version=4)
    assert PATH.stat().st_size < 400_000
    outputs = [output for cell in kept.cells for output in cell.get("outputs", [])]
    assert all(output.get("name") != "stderr" and output.output_type != "error" for output in outputs)


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    return [out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "stream"]


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)
