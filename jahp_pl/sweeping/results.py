"""Writes the results of a sweep to a JSON and a CSV file, and reads them in later sessions."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jahp_pl.files import json_content
from jahp_pl.files.atomic import write_atomically, write_json
from jahp_pl.files.json_content import FINITE, first_mismatch
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.entries import SweepEntry, best_entry
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.parameters import Value
from jahp_pl.text import encoded

_FIRST_COLUMNS = ("name", "state")
"""Names of the first columns of the CSV file."""
_RUN = {"name": str, "values": {}, "steps": int, "seconds": FINITE, "metrics": {}}
_STORED = {"sweep": str, "points": [_RUN]}
"""Expected content of the JSON file, for `json_content.first_mismatch`; what nothing reads is left out."""


def write_sweep_results(path: Path, file: SweepFile, entries: Sequence[SweepEntry]) -> None:
    """Write the results to `path` (.json) and to a .csv file next to it, replacing both.

    Raises:
        WriteError: if the disk is full; the previous files are kept.
    """
    winner = best_entry(entries, file.metric)
    content = {
        "sweep": str(file.path),
        "method": file.method,
        "metric": file.metric.name if file.metric is not None else None,
        "goal": file.metric.goal if file.metric is not None else "minimize",
        "best": winner.run.name if winner is not None else None,
        "points": [_to_json(entry) for entry in entries],
    }
    write_json(path, content)
    write_atomically(path.with_suffix(".csv"), encoded(_to_csv(entries)))


class StoredRun(NamedTuple):
    """Stored results of one run."""

    name: str
    values: Mapping[str, Value]
    steps: int
    seconds: float
    metrics: Mapping[str, float]


def read_sweep_results(path: Path) -> list[StoredRun]:
    """Read the runs of earlier sessions in order; empty if there are no files.

    Raises:
        SweepError: if `write_sweep_results` did not write `path` or the .csv file next to it, and would overwrite it.
        OSError: if one of them may not be read.
    """
    table = path.with_suffix(".csv")
    if table.exists() and not _starts(table, ",".join(_FIRST_COLUMNS)):
        raise _foreign(table)
    if not path.exists():
        return []
    try:
        content = json_content.read(path)
    except (IsADirectoryError, ValueError):
        raise _foreign(path) from None
    if first_mismatch(content, _STORED) is not None:
        raise _foreign(path)
    rows = [StoredRun(*(run[field] for field in StoredRun._fields)) for run in content["points"]]
    if first_mismatch([value for row in rows for value in row.metrics.values()], [FINITE]) is not None:
        raise _foreign(path)
    return rows


def _foreign(path: Path) -> SweepError:
    """Return the error for a file that is not a result of a sweep."""
    return SweepError(f"{path}: has no results of a sweep; move it away, or choose another output_dir=...")


def _starts(path: Path, text: str) -> bool:
    try:
        with path.open(errors="replace") as file:
            return file.read(len(text)) == text
    except IsADirectoryError:
        return False


def _to_json(entry: SweepEntry) -> dict[str, Any]:
    return {
        "name": entry.run.name,
        "state": entry.state,
        "values": dict(entry.run.values),
        "run_dir": str(entry.run.config.run_dir),
        "steps": entry.steps,
        "seconds": entry.seconds,
        "metrics": entry.metrics,
        "error": entry.error,
        "arguments": list(entry.run.arguments),
    }


def _to_csv(entries: Sequence[SweepEntry]) -> str:
    metrics = list(dict.fromkeys(name for entry in entries for name in entry.metrics if name != "step"))
    keys = list(entries[0].run.values) if entries else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIRST_COLUMNS, *keys, "steps", "seconds", *metrics])
    for entry in entries:
        values = [entry.run.values[key] for key in keys]
        figures = [entry.metrics.get(name, "") for name in metrics]
        writer.writerow([entry.run.name, entry.state, *values, entry.steps, entry.seconds, *figures])
    return text.getvalue()
