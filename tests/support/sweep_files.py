"""Writes small sweep files for tests, and invents results for their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jahp_pl.sweeping.entries import SweepEntry
from jahp_pl.sweeping.file import SweepFile, read_sweep
from jahp_pl.sweeping.runs import grid_runs

SMALL: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "val/loss"},
    "parameters": {"loss.lmbda": {"values": [0.01, 0.02]}},
    "command": ["${env}", "${interpreter}", "-m", "jahp_pl", "train", "data.val=[x]", "${args_no_hyphens}"],
}


def write(folder: Path, **changes: Any) -> Path:
    """Write `SMALL` with other entries to a file; None removes one."""
    content = {key: value for key, value in (SMALL | changes).items() if value is not None}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def small(folder: Path, **changes: Any) -> SweepFile:
    """Write a file as `write` does, and read it."""
    return read_sweep(write(folder, **changes))


def entries(sweep: SweepFile, *scores: float | None) -> list[SweepEntry]:
    """Return all runs of a grid with these values of val/loss; None for a failed run."""
    runs = grid_runs(sweep)
    return [
        SweepEntry(run, "failed" if value is None else "done", 8, 1.5, {} if value is None else {"val/loss": value})
        for run, value in zip(runs, scores, strict=True)
    ]
