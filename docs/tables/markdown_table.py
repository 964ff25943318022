"""Formats Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: str, rows: Iterable[Sequence[str]]) -> str:
    """Format a table. Columns of the header are separated by `|`; a title that ends in `>` aligns its column right."""
    columns = [title.strip() for title in header.split("|")]
    titles = [title.removesuffix(">").rstrip() for title in columns]
    rules = ["---:" if title.endswith(">") else "---" for title in columns]
    lines = ["".join(f"| {cell} " if cell else "| " for cell in cells) + "|" for cells in (titles, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]]) + "\n"
