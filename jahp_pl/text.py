"""Makes text from outside (file names, keys, archive members) safe to print on a terminal."""

from __future__ import annotations

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that move the cursor, change the writing direction, or are half a character."""


def printable(text: str) -> str:
    """Replace control characters by escapes such as `\\x1b`; keep newlines and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in _HIDDEN else ascii(char)[1:-1] for char in text
    )
