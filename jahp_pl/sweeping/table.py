"""Shows the state of a sweep as a table that a terminal redraws in place."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from jahp_pl.sweeping.entries import EntryState, SweepEntry
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.processes import LOG
from jahp_pl.sweeping.run_state import last_values
from jahp_pl.text import count_of, printable

_URGENCY: tuple[EntryState, ...] = ("running", "failed", "done", "waiting")
_SHOWN_METRICS = ("val/file_bpp", "val/bpp", "val/psnr")
_INTERVAL = 2.0  # seconds


class LiveTable:
    """Display of a sweep's progress, see `sweep.Watcher`.

    Args:
        file: sweep file, which determines the columns.
        entries: list of all runs, which may grow.
        stream: output; a terminal shows a live table, anything else gets one line per change.
    """

    def __init__(self, file: SweepFile, entries: Sequence[SweepEntry], stream: TextIO) -> None:
        self.file, self.entries, self.stream = file, entries, stream
        self.redraws = stream.isatty()
        self._height, self._drawn, self._start = 0, 0.0, time.monotonic()

    def changed(self, entry: SweepEntry, lines: Sequence[str]) -> None:
        """Redraw the table or write a line; if the run failed, also write the last lines of its log."""
        news = [f"{entry.run.name}: {state_text(entry)}{self._found(entry)}"]
        if entry.state == "failed":
            news = [f"{news[0]}: {entry.error}", *(f"  | {line}" for line in lines)]
            news += [f"  | ({entry.run.config.run_dir / LOG})"] if lines else []
        if not self.redraws:
            self.stream.write("".join(f"{printable(line)}\n" for line in news))
            self.stream.flush()
            return
        if entry.state == "failed":
            self._erase()
            self.stream.write("".join(f"{printable(line)}\n" for line in news))
        self._draw()

    def tick(self, entries: Sequence[SweepEntry]) -> None:
        """Update the progress of the runs that are training and redraw the table, but only every few seconds."""
        if not self.redraws or time.monotonic() - self._drawn < _INTERVAL:
            return
        for entry in entries:
            if entry.state == "running":
                entry.metrics = last_values(entry.run.config.run_dir)
        self._draw()

    def close(self) -> None:
        """Clear the table."""
        if self.redraws:
            self._erase()
            self.stream.flush()

    def _found(self, entry: SweepEntry) -> str:
        metric, value = self.file.metric, entry.score(self.file.metric)
        return f", {metric.name} {value:.5g}" if metric is not None and value is not None else ""

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        lines = [sweep_summary(self.entries, time.monotonic() - self._start)]
        lines += format_sweep_table(self.file, self.entries, most=max(3, height - 4))
        self._erase()
        self.stream.write("".join(f"{printable(line)[: width - 1]}\n" for line in lines))
        self.stream.flush()
        self._height, self._drawn = len(lines), time.monotonic()

    def _erase(self) -> None:
        if self._height:
            self.stream.write(f"\x1b[{self._height}A\x1b[J")
        self._height = 0


def state_text(entry: SweepEntry) -> str:
    """Describe the state of a run in one word, with the percentage of its steps if it is unfinished."""
    steps = max(entry.steps, int(entry.metrics.get("step", 0)))
    if entry.state in ("done", "waiting") or not steps:
        return entry.state
    return f"{entry.state} {100 * steps / entry.run.config.trainer.max_steps:.0f} %"


def sweep_summary(entries: Sequence[SweepEntry], seconds: float) -> str:
    """Describe in one line how many runs are in each state, and the elapsed `seconds` as h:mm:ss."""
    counts = Counter(entry.state for entry in entries)
    parts = [f"{counts[state]} {state}" for state in ("done", "running", "waiting", "failed") if counts[state]]
    minutes, rest = divmod(round(seconds), 60)
    return f"{count_of(len(entries), 'run')}: {', '.join(parts)} | {minutes // 60}:{minutes % 60:02}:{rest:02}"


def format_sweep_table(file: SweepFile, entries: Sequence[SweepEntry], most: int | None = None) -> list[str]:
    """Format a header, a rule and a line per run: values, state, metric, and rate and PSNR if they were measured.

    Args:
        file: sweep file, which determines the columns.
        entries: runs to show.
        most: maximum number of runs to show; running and failed ones have priority. None for all.
    """
    keys = [parameter.key for parameter in file.parameters]
    metrics = [file.metric.name] if file.metric is not None else []
    metrics += [name for name in _SHOWN_METRICS if name not in metrics and any(name in e.metrics for e in entries)]
    header = ["run", *(_short(key, keys) for key in keys), "state", *metrics]
    shown = _most_urgent(entries, most)
    cells = [[e.run.name, *(str(e.run.values[k]) for k in keys), state_text(e), *_numbers(e, metrics)] for e in shown]
    lines = _aligned([header, *cells], num_right=len(metrics))
    lines.insert(1, "-" * len(lines[0]))
    return lines if len(shown) == len(entries) else [*lines, f"and {len(entries) - len(shown)} more"]


def _most_urgent(entries: Sequence[SweepEntry], most: int | None) -> list[SweepEntry]:
    """Choose the runs to show, in order; see `format_sweep_table`."""
    if most is None or len(entries) <= most:
        return list(entries)
    by_urgency = sorted(range(len(entries)), key=lambda number: _URGENCY.index(entries[number].state))
    return [entries[number] for number in sorted(by_urgency[: most - 1])]


def _aligned(rows: Sequence[Sequence[str]], num_right: int) -> list[str]:
    """Format rows of cells as lines; the last `num_right` columns are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first_right = len(widths) - num_right
    return [
        "  ".join(
            cell.rjust(width) if column >= first_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _short(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a dotted key, or all of it if another key has the same last part."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1 else key


def _numbers(entry: SweepEntry, names: Sequence[str]) -> list[str]:
    return [f"{entry.metrics[name]:.5g}" if name in entry.metrics else "-" for name in names]
