"""Reads the metrics.csv of a run, even while the run writes it or after it was killed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

_MAX_DIGITS = 18
"""Maximum number of digits in a step; Python refuses to convert thousands of them."""


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield each row as a dictionary from column to text; skip rows that are cut short or damaged.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        while True:
            try:
                row: dict[str | None, str | None] = next(rows)
            except StopIteration:
                return
            except csv.Error:  # e.g. a field of megabytes
                continue
            whole = {name: text for name, text in row.items() if name is not None and text is not None}
            if len(whole) == len(row):
                yield whole


def step_of(row: Mapping[str, str]) -> int | None:
    """Return the optimizer step of a row; None if it has none."""
    text = row.get("step", "")
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else None


def number_of(text: str) -> float | None:
    """Return the number in a cell; None if the cell is empty, damaged, or holds no finite number."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
