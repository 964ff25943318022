"""The table of a sweep shows what matters whatever its height, and redraws itself on a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

from jahp_pl.sweeping.entries import SweepEntry
from jahp_pl.sweeping.runs import grid_runs
from jahp_pl.sweeping.table import LiveTable, format_sweep_table
from tests.support.sweep_files import small


def test_a_long_table_shows_what_runs_and_what_failed(tmp_path: Path) -> None:
    sweep = small(tmp_path, parameters={"loss.lmbda": {"values": [n / 100 for n in range(1, 31)]}})
    rows = [SweepEntry(run) for run in grid_runs(sweep)]
    rows[20].state, rows[29].state = "running", "failed"
    rows[20].metrics = {"step": 250_000.0}
    lines = format_sweep_table(sweep, rows, most=5)
    assert len(lines) == 2 + 4 + 1
    assert "running 25 %" in lines[-3]
    assert "failed" in lines[-2]
    assert lines[-1] == "and 26 more"
    assert len(format_sweep_table(sweep, rows)) == 32


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_table_is_drawn_over_itself_and_failures_stay(tmp_path: Path) -> None:
    sweep = small(tmp_path)
    rows, stream = [SweepEntry(run) for run in grid_runs(sweep)], Terminal()
    table = LiveTable(sweep, rows, stream)
    rows[0].state = "running"
    table.changed(rows[0], ())
    rows[0].state, rows[0].error = "failed", "no shards"
    table.changed(rows[0], ["a traceback", "no shards"])
    table.close()
    screen = [""]
    for part in re.split("\x1b\\[(?=[0-9]*[AJ])", stream.getvalue()):
        up = re.match("([0-9]+)A", part)
        if up is not None:
            screen = [*screen[: len(screen) - 1 - int(up[1])], ""]
        lines = re.sub("^([0-9]+A|J)", "", part).split("\n")
        screen = [*screen[:-1], screen[-1] + lines[0], *lines[1:]]
    assert [line.strip() for line in screen if line] == [
        "small-lmbda0.01: failed: no shards", "| a traceback", "| no shards", "| (runs/small-lmbda0.01/log.txt)"
    ]  # fmt: skip
