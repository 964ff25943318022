"""Formats tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: str, rows: Iterable[Sequence[str]]) -> str:
    """Format a table. Each column of the header is `title`, or `title >` for figures aligned to the right."""
    columns = [title.strip() for title in header.split("|")]
    titles = [title.removesuffix(">").rstrip() for title in columns]
    rules = ["---:" if title.endswith(">") else "---" for title in columns]
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]]).replace("|  |", "| |") + "\n"
