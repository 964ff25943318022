"""Text for a terminal: makes names from outside (files, keys, archive members) safe to print, counts things, and finds
the word that was meant by a mistyped one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of control and format characters, lone surrogates, and line and paragraph separators."""


def printable(text: str) -> str:
    """Replace control and other invisible characters by escapes such as `\\x1b`; keep newlines and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in _HIDDEN else ascii(char)[1:-1] for char in text
    )


MAX_FIGURE_TEXT = 200
"""Maximum number of characters of a text in a figure, which would take minutes to lay out megabytes."""


def figure_text(text: str) -> str:
    """Escape and cut text for a matplotlib figure, which reads `$` as mathematics and fails on surrogates."""
    return printable(shortened(text, MAX_FIGURE_TEXT)).replace("$", r"\$")


def encoded(text: str) -> bytes:
    """Encode text as UTF-8; what UTF-8 lacks, such as bytes of a file name in another encoding, becomes an escape."""
    return text.encode(errors="backslashreplace")


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 image" or "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shortened(value: object, length: int = 80) -> str:
    """Return the text of a value for a message, cut to `length` characters."""
    try:
        text = str(value)
    except ValueError:  # a whole number with more digits than Python prints
        return "a number with thousands of digits"
    return text if len(text) <= length else f"{text[: length - 3]}..."


def nearest_word(word: str, known: Iterable[str], similarity: float = 0.6) -> str | None:
    """Return the known word that a mistyped one most resembles; None if it resembles none.

    Args:
        word: the mistyped word.
        known: the words that are possible.
        similarity: least similarity to count, from 0 (none) to 1 (equal).
    """
    import difflib  # only a mistake needs it, and every command imports this module

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=similarity)), None)
