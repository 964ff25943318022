"""Shows the state of a sweep as a table that a terminal redraws in place."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.points import PointState, SweepEntry, last_values
from jahp_pl.sweeping.processes import LOG
from jahp_pl.text import count_of, printable

_ORDER: tuple[PointState, ...] = ("running", "failed", "done", "waiting")
_FIGURES = ("val/file_bpp", "val/bpp", "val/psnr")
_INTERVAL = 2.0  # seconds


class LiveTable:
    """Display of a sweep's progress, see `run.Watcher`.

    Args:
        sweep: sweep file, which determines the columns.
        entries: list of all points, which may grow.
        stream: output; a terminal shows a live table, anything else gets one line per change.
    """

    def __init__(self, sweep: SweepFile, entries: Sequence[SweepEntry], stream: TextIO) -> None:
        self.sweep, self.entries, self.stream = sweep, entries, stream
        self.redraws = stream.isatty()
        self._height, self._drawn, self._start = 0, 0.0, time.monotonic()

    def changed(self, entry: SweepEntry, lines: Sequence[str]) -> None:
        """Redraw the table or write a line; if the point failed, also write the last lines of its log."""
        news = [f"{entry.point.name}: {state_text(entry)}{self._found(entry)}"]
        if entry.state == "failed":
            news = [f"{news[0]}: {entry.error}", *(f"  | {line}" for line in lines)]
            news += [f"  | ({entry.point.config.run_dir / LOG})"] if lines else []
        if not self.redraws:
            self.stream.write("".join(f"{printable(line)}\n" for line in news))
            self.stream.flush()
            return
        if entry.state == "failed":
            self._erase()
            self.stream.write("".join(f"{printable(line)}\n" for line in news))
        self._draw()

    def tick(self, entries: Sequence[SweepEntry]) -> None:
        """Update the progress of running points and redraw the table, but only every few seconds."""
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

    def _found(self, entry: SweepEntry) -> str:
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


def state_text(entry: SweepEntry) -> str:
    """Describe the state of a point in one word, with the percentage of its steps if it is unfinished."""
    steps = max(entry.steps, int(entry.metrics.get("step", 0)))
    if entry.state in ("done", "waiting") or not steps:
        return entry.state
    return f"{entry.state} {100 * steps / entry.point.config.trainer.max_steps:.0f} %"


def sweep_summary(entries: Sequence[SweepEntry], seconds: float) -> str:
    """Describe in one line how many points are in each state, and the elapsed `seconds` as h:mm:ss."""
    counts = Counter(entry.state for entry in entries)
    parts = [f"{counts[state]} {state}" for state in ("done", "running", "waiting", "failed") if counts[state]]
    minutes, rest = divmod(round(seconds), 60)
    return f"{count_of(len(entries), 'point')}: {', '.join(parts)} | {minutes // 60}:{minutes % 60:02}:{rest:02}"


def format_sweep_table(sweep: SweepFile, entries: Sequence[SweepEntry], most: int | None = None) -> list[str]:
    """Format a header, a rule and a line per point: values, state, metric, and rate and PSNR if they were measured.

    Args:
        sweep: sweep file, which determines the columns.
        entries: points to show.
        most: maximum number of points to show; running and failed ones have priority. None for all.
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


def _figures(entry: SweepEntry, names: Sequence[str]) -> list[str]:
    return [f"{entry.metrics[name]:.5g}" if name in entry.metrics else "-" for name in names]
