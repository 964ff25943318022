"""Counts agree with their nouns, text from outside can be drawn and stored, and mistyped words are recognized."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jahp_pl.text import MAX_FIGURE_TEXT, count_of, encoded, figure_text, nearest_word


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


def test_a_mistyped_word_stands_for_the_most_similar_known_one():
    known = {"compress": 1, "decompress": 2, "evaluate": 3}
    assert nearest_word("compres", known) == "compress"
    assert nearest_word("decompres", iter(known)) == "decompress"
    assert nearest_word("train", known) is None
    assert nearest_word("compres", known, similarity=1.0) is None
    assert nearest_word("compres", []) is None
