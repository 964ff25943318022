"""Every curve against every anchor: BD-rates by three interpolations, and the rates that savings are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jahp_pl.report.bd_rate import METHODS, CurveError, Method, bd_rate, rate_at
from jahp_pl.report.curves import Curve, Metric

MAX_ANCHORS = 24
"""With more curves than this, only the chosen anchor is compared with: a report of all published ones takes long."""
STEP = 0.1
"""dB between the qualities at which savings are drawn."""


class Compared(NamedTuple):
    """One curve against an anchor."""

    percent: dict[Method, float | None]
    """BD-rate by method; None where that method cannot say."""
    low: float | None
    """dB, from where both curves reach; None where no method can say anything."""
    high: float | None
    why: str
    """Why the first method that cannot say cannot; empty where all can."""
    spread: tuple[float, float] | None = None
    """Least and greatest cubic BD-rate of one seed's curve against the anchor's of the same seed; None where fewer than
    two seeds can be compared."""


class RateGrid(NamedTuple):
    """The rates of all curves at common qualities."""

    start: float
    """dB, of the first quality; the others follow in steps of `STEP`."""
    rates: list[list[float | None] | None]
    """By curve and quality, bits per pixel; None outside a curve and for curves that cannot be interpolated."""


def compare(anchor: Curve, curve: Curve, metric: Metric) -> Compared:
    """BD-rates of a curve, with the reasons for those that do not exist."""
    percent: dict[Method, float | None] = {}
    low, high, why = None, None, ""
    for method in METHODS:
        try:
            result = bd_rate(anchor.values(metric), curve.values(metric), method)
        except CurveError as error:
            percent[method], why = None, why or str(error)
        else:
            percent[method], low, high = result
    return Compared(percent, low, high, why, _spread(anchor, curve, metric))


def _spread(anchor: Curve, curve: Curve, metric: Metric) -> tuple[float, float] | None:
    percents = []
    for seed, one in curve.seeds.items():
        # An anchor without seeds, a classical codec for example, is the same for all.
        other = anchor.seeds.get(seed) if anchor.seeds else anchor
        if other is None:
            continue
        try:
            percents.append(bd_rate(other.values(metric), one.values(metric), "cubic").percent)
        except CurveError:
            continue
    return (min(percents), max(percents)) if len(percents) > 1 else None


def rate_grid(curves: Sequence[Curve], metric: Metric) -> RateGrid:
    """Rates at common qualities."""
    values = [value for curve in curves for _, value in curve.values(metric)]
    if not values:
        return RateGrid(0.0, [None] * len(curves))
    start = float(np.ceil(min(values) / STEP) * STEP)
    qualities = (start + STEP * np.arange(int((max(values) - start) / STEP) + 1)).tolist()
    rates: list[list[float | None] | None] = []
    for curve in curves:
        try:
            rates.append(rate_at(curve.values(metric), qualities))
        except CurveError:
            rates.append(None)
    return RateGrid(start, rates)


def format_table(curves: Sequence[Curve], anchor: Curve, metric: Metric) -> list[str]:
    """A table in Markdown of all curves against one, best first, with the range of each comparison."""
    rows = [(curve, compare(anchor, curve, metric)) for curve in curves if curve is not anchor]
    rows.sort(key=lambda row: min((v for v in row[1].percent.values() if v is not None), default=np.inf))
    heads = [*(f"{name}, %" for name in METHODS.values()), "range, dB"]
    if has_seeds := any(compared.spread is not None for _, compared in rows):
        heads.append("cubic by seed, %")
    lines = [f"| against {anchor.title} | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for curve, compared in rows:
        cells = ["–" if value is None else f"{value:+.2f}" for value in compared.percent.values()]
        cells.append(f"{compared.low:.2f} to {compared.high:.2f}" if compared.low is not None else compared.why)
        if has_seeds:
            cells.append("–" if compared.spread is None else "{:+.2f} to {:+.2f}".format(*compared.spread))
        lines.append(f"| {curve.title} | {' | '.join(cells)} |")
    return lines
