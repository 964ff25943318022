"""A point and what has become of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.points import Point

State = Literal["waiting", "running", "done", "failed"]


@dataclass
class Entry:
    """One row of the table; changes while the sweep runs."""

    point: Point
    state: State = "waiting"
    steps: int = 0
    """Optimizer steps done, over all sessions."""
    seconds: float = 0.0
    """Trained, over all sessions."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Last value of each."""
    error: str = ""
    """One line, of a point that failed."""


def score(entry: Entry, sweep: SweepFile) -> float | None:
    """What the sweep looks at, of a point that is done; None where there is no such figure."""
    return entry.metrics.get(sweep.metric) if sweep.metric is not None and entry.state == "done" else None


def best(entries: Sequence[Entry], sweep: SweepFile) -> Entry | None:
    """The point whose metric is the best so far."""
    sign = 1 if sweep.goal == "minimize" else -1
    scored = [(sign * value, number) for number, e in enumerate(entries) if (value := score(e, sweep)) is not None]
    return entries[min(scored)[1]] if scored else None


def is_on_target(entries: Sequence[Entry], sweep: SweepFile) -> bool:
    """Whether some point is as good as `metric.target` asks for."""
    winner = best(entries, sweep)
    value = score(winner, sweep) if winner is not None else None
    if value is None or sweep.target is None:
        return False
    return value <= sweep.target if sweep.goal == "minimize" else value >= sweep.target
