"""Makes text from outside (file names, keys, archive members) safe to print on a terminal."""

from __future__ import annotations

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of control and format characters, lone surrogates, and line and paragraph separators."""


def printable(text: str) -> str:
    """Replace control and other invisible characters by escapes such as `\\x1b`; keep newlines and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in _HIDDEN else ascii(char)[1:-1] for char in text
    )
