"""Counts agree with their nouns; text from outside can be drawn and stored."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jahp_pl.text import MAX_FIGURE_TEXT, count_of, encoded, figure_text


@pytest.mark.parametrize(("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_thing_is_singular(number: int, words: str) -> None:
    assert count_of(number, "image") == words


def test_text_for_a_figure_has_no_mathematics_and_no_surrogates():
    figure = Figure()
    text = figure.text(0, 0, figure_text("a$b_{$c \udce9\x1b"))
    FigureCanvasAgg(figure).draw()
    assert text.get_text() == r"a\$b_{\$c \udce9\x1b"


def test_text_for_a_figure_is_cut_before_its_layout_takes_minutes():
    assert figure_text("a" * 100_000) == "a" * (MAX_FIGURE_TEXT - 3) + "..."


def test_any_text_can_be_stored():
    assert encoded("\u03bb caf\udce9 \ud800").decode() == r"\u03bb caf\udce9 \ud800".replace(r"\u03bb", "\u03bb")
