"""The runs of a sweep in progress with their states and results, and the comparison of these by the sweep's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jahp_pl.sweeping.file import SweepMetric
from jahp_pl.sweeping.runs import SweepRun

EntryState = Literal["waiting", "running", "done", "failed"]
"""State of a run; waiting runs have not started or were interrupted."""


@dataclass
class SweepEntry:
    """Run of a sweep in progress, with its state and results so far; one row of the table."""

    run: SweepRun
    state: EntryState = "waiting"
    steps: int = 0
    """Number of optimizer steps over all sessions."""
    seconds: float = 0.0
    """Training time over all sessions, in seconds."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Last value of each metric, by name."""
    error: str = ""
    """One-line reason if the run failed, otherwise empty."""

    @property
    def is_open(self) -> bool:
        """Whether the run has not ended yet."""
        return self.state in ("waiting", "running")

    def score(self, metric: SweepMetric | None) -> float | None:
        """Return a finished run's value of the sweep's metric; None if it has none."""
        return self.metrics.get(metric.name) if metric is not None and self.state == "done" else None


def best_entry(entries: Sequence[SweepEntry], metric: SweepMetric | None) -> SweepEntry | None:
    """Return the run with the best metric so far, the first of equal ones; None if no run has the metric."""
    if metric is None:
        return None
    sign = 1 if metric.is_minimized else -1
    scored = [(sign * value, number) for number, e in enumerate(entries) if (value := e.score(metric)) is not None]
    return entries[min(scored)[1]] if scored else None


def has_reached_target(entries: Sequence[SweepEntry], metric: SweepMetric | None) -> bool:
    """Check whether a run has reached the metric's target."""
    if metric is None:
        return False
    scores = [score for entry in entries if (score := entry.score(metric)) is not None]
    return any(map(metric.is_reached_by, scores))
