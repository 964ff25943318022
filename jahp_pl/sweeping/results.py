"""What a sweep leaves behind: one JSON and one CSV file, replaced whenever a point changes its state."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jahp_pl.files import write_atomically
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.entries import Entry, best
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.space import Value


def write_results(path: Path, sweep: SweepFile, entries: Sequence[Entry]) -> None:
    """Replace `path` (.json) and the .csv beside it.

    Raises:
        WriteError: the disk is full; what was there before is kept.
    """
    winner = best(entries, sweep)
    content = {
        "sweep": str(sweep.path),
        "method": sweep.method,
        "metric": sweep.metric,
        "goal": sweep.goal,
        "best": winner.point.name if winner is not None else None,
        "points": [_to_json(entry) for entry in entries],
    }
    write_atomically(path, f"{json.dumps(content, indent=1)}\n".encode())
    write_atomically(path.with_suffix(".csv"), _to_csv(entries).encode())


def read_values(path: Path, sweep: SweepFile) -> list[Mapping[str, Value]]:
    """The points that earlier sessions proposed, in order; none without a file.

    Raises:
        SweepError: the file is of a sweep with other parameters.
    """
    if not path.exists():
        return []
    try:
        found: list[Mapping[str, Value]] = [point["values"] for point in json.loads(path.read_text())["points"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise SweepError(f"{path}: no results of a sweep; move it away") from None
    space = {parameter.key: parameter for parameter in sweep.parameters}
    for values in found:
        if set(values) != set(space) or not all(space[key].contains(value) for key, value in values.items()):
            raise SweepError(f"{path}: holds a point that {sweep.path} would not draw, {values}; move it away")
    return found


def _to_json(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.point.name,
        "state": entry.state,
        "values": dict(entry.point.values),
        "run_dir": str(entry.point.config.run_dir),
        "steps": entry.steps,
        "seconds": entry.seconds,
        "metrics": entry.metrics,
        "error": entry.error,
        "arguments": list(entry.point.arguments),
    }


def _to_csv(entries: Sequence[Entry]) -> str:
    metrics = list(dict.fromkeys(name for entry in entries for name in entry.metrics if name != "step"))
    keys = list(entries[0].point.values) if entries else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "state", *keys, "steps", "seconds", *metrics])
    for entry in entries:
        values = [entry.point.values[key] for key in keys]
        figures = [entry.metrics.get(name, "") for name in metrics]
        writer.writerow([entry.point.name, entry.state, *values, entry.steps, entry.seconds, *figures])
    return text.getvalue()
