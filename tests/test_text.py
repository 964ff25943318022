"""Counts agree with their nouns."""

from __future__ import annotations

import pytest

from jahp_pl.text import count_of


@pytest.mark.parametrize(("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_thing_is_singular(number: int, words: str) -> None:
    assert count_of(number, "image") == words
