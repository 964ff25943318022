"""The state of a sweep: a live table on a terminal, and results in a JSON and a CSV file."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jahp_pl.files import write_atomically
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.parameters import Value
from jahp_pl.sweeping.points import Entry, PointState, best, last_values
from jahp_pl.text import printable

_ORDER: tuple[PointState, ...] = ("running", "failed", "done", "waiting")
_FIGURES = ("val/file_bpp", "val/bpp", "val/psnr")
_INTERVAL = 2.0  # seconds


class LiveTable:
    """Displays the progress of a sweep, see `run.Watcher`.

    Args:
        sweep: sweep file, for the columns.
        entries: all points; may grow.
        stream: a terminal shows a live table, anything else gets a line per change.
    """

    def __init__(self, sweep: SweepFile, entries: Sequence[Entry], stream: TextIO) -> None:
        self.sweep, self.entries, self.stream = sweep, entries, stream
        self.redraws = stream.isatty()
        self._height, self._drawn, self._start = 0, 0.0, time.monotonic()

    def changed(self, entry: Entry, lines: Sequence[str]) -> None:
        """Redraw, or write a line; the end of a failed point's log stays on the screen."""
        news = [f"{entry.point.name}: {state_text(entry)}{self._found(entry)}"]
        if entry.state == "failed":
            news = [f"{news[0]}: {entry.error}", *(f"  | {line}" for line in lines)]
            news += [f"  | ({entry.point.config.run_dir / 'log.txt'})"] if lines else []
        if not self.redraws:
            self.stream.write("".join(f"{printable(line)}\n" for line in news))
            self.stream.flush()
            return
        if entry.state == "failed":
            self._erase()
            self.stream.write("".join(f"{printable(line)}\n" for line in news))
        self._draw()

    def tick(self, entries: Sequence[Entry]) -> None:
        """Update the progress of running points and redraw, at intervals."""
        if not self.redraws or time.monotonic() - self._drawn < _INTERVAL:
            return
        for entry in entries:
            if entry.state == "running":
                entry.metrics = last_values(entry.point.config.run_dir)
        self._draw()

    def close(self) -> None:
        """Clear the table."""
        if self.redraws:
            self._erase()
            self.stream.flush()

    def _found(self, entry: Entry) -> str:
        value = entry.metrics.get(self.sweep.metric or "")
        return f", {self.sweep.metric} {value:.5g}" if entry.state == "done" and value is not None else ""

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        lines = [sweep_summary(self.entries, time.monotonic() - self._start)]
        lines += format_sweep_table(self.sweep, self.entries, most=max(3, height - 4))
        self._erase()
        self.stream.write("".join(f"{printable(line)[: width - 1]}\n" for line in lines))
        self.stream.flush()
        self._height, self._drawn = len(lines), time.monotonic()

    def _erase(self) -> None:
        if self._height:
            self.stream.write(f"\x1b[{self._height}A\x1b[J")
        self._height = 0


def state_text(entry: Entry) -> str:
    """Describe the state in one word, with the share of steps done if unfinished."""
    steps = max(entry.steps, int(entry.metrics.get("step", 0)))
    if entry.state in ("done", "waiting") or not steps:
        return entry.state
    return f"{entry.state} {100 * steps / entry.point.config.trainer.max_steps:.0f} %"


def sweep_summary(entries: Sequence[Entry], seconds: float) -> str:
    """Count the points in each state."""
    counts = Counter(entry.state for entry in entries)
    parts = [f"{counts[state]} {state}" for state in ("done", "running", "waiting", "failed") if counts[state]]
    minutes, rest = divmod(round(seconds), 60)
    return f"{len(entries)} points: {', '.join(parts)} | {minutes // 60}:{minutes % 60:02}:{rest:02}"


def format_sweep_table(sweep: SweepFile, entries: Sequence[Entry], most: int | None = None) -> list[str]:
    """Format a header, a rule and a line per point: values, state, the metric, and rate and PSNR if measured.

    Args:
        sweep: sweep file, for the columns.
        entries: the points.
        most: maximum number of lines for points; if there are more points, running and failed ones have priority.
    """
    keys = [parameter.key for parameter in sweep.parameters]
    figures = [sweep.metric] if sweep.metric is not None else []
    figures += [name for name in _FIGURES if name not in figures and any(name in e.metrics for e in entries)]
    head = ["point", *(_short(key, keys) for key in keys), "state", *figures]
    shown = list(entries)
    if most is not None and len(shown) > most:
        urgent = sorted(range(len(shown)), key=lambda number: _ORDER.index(shown[number].state))
        shown = [shown[number] for number in sorted(urgent[: most - 1])]
    cells = [
        [e.point.name, *(str(e.point.values[k]) for k in keys), state_text(e), *_figures(e, figures)] for e in shown
    ]
    widths = [max(len(row[column]) for row in [head, *cells]) for column in range(len(head))]
    first_figure = len(head) - len(figures)

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if column >= first_figure else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    lines = [line(head), "-" * len(line(head)), *map(line, cells)]
    return lines if len(shown) == len(entries) else [*lines, f"and {len(entries) - len(shown)} more"]


def _short(key: str, keys: Sequence[str]) -> str:
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1 else key


def _figures(entry: Entry, names: Sequence[str]) -> list[str]:
    return [f"{entry.metrics[name]:.5g}" if name in entry.metrics else "-" for name in names]


_HEAD = ("name", "state")
"""First columns of the CSV file."""


def write_sweep_results(path: Path, sweep: SweepFile, entries: Sequence[Entry]) -> None:
    """Replace `path` (.json) and the .csv next to it.

    Raises:
        WriteError: if the disk is full; the previous files are kept.
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


class Row(NamedTuple):
    """Stored results of one point."""

    name: str
    values: Mapping[str, Value]
    steps: int
    seconds: float
    metrics: Mapping[str, float]


def read_sweep_results(path: Path) -> list[Row]:
    """Read the points of earlier sessions in order; empty without files.

    Raises:
        SweepError: if `path` or the .csv next to it was not written by `write_sweep_results`, and would be overwritten.
    """
    table = path.with_suffix(".csv")
    if table.exists() and not _starts(table, ",".join(_HEAD)):
        raise _foreign(table)
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        rows = [Row(*(point[field] for field in Row._fields)) for point in content["points"]]
        is_ours = "sweep" in content and all(map(_is_whole, rows))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        is_ours = False
    if not is_ours:
        raise _foreign(path)
    return rows


def _foreign(path: Path) -> SweepError:
    return SweepError(f"{path}: has no results of a sweep; move it away, or choose another output_dir=...")


def _starts(path: Path, text: str) -> bool:
    try:
        with path.open(errors="replace") as file:
            return file.read(len(text)) == text
    except OSError:
        return False


def _is_whole(row: Row) -> bool:
    is_counted = isinstance(row.steps, int) and isinstance(row.seconds, int | float)
    is_named = isinstance(row.name, str) and isinstance(row.values, dict) and isinstance(row.metrics, dict)
    return is_counted and is_named and all(isinstance(value, int | float) for value in row.metrics.values())


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
    writer.writerow([*_HEAD, *keys, "steps", "seconds", *metrics])
    for entry in entries:
        values = [entry.point.values[key] for key in keys]
        figures = [entry.metrics.get(name, "") for name in metrics]
        writer.writerow([entry.point.name, entry.state, *values, entry.steps, entry.seconds, *figures])
    return text.getvalue()
