"""Text from outside (names of files, keys, members of archives), fit for a terminal."""

from __future__ import annotations

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what moves the cursor, turns the direction of writing, or is half a character."""


def printable(text: str) -> str:
    """Replace what a terminal would obey by its escape, e.g. `\\x1b`; ends of lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in _HIDDEN else ascii(char)[1:-1] for char in text
    )
