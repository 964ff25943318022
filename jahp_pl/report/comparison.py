"""Compares every curve with every anchor: BD-rates by three interpolations, and rates for plots of savings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jahp_pl.report.bd_rate import INTERPOLATIONS, CurveError, Interpolation, bd_rate, rate_at
from jahp_pl.report.curves import Curve, Measure

MAX_ANCHORS = 24
"""If there are more curves than this, they are compared with the chosen anchor only; all pairs would take too long."""
STEP = 0.1
"""Distance between the qualities at which savings are drawn, in dB."""


class CurveComparison(NamedTuple):
    """Comparison of one curve with an anchor."""

    percent: dict[Interpolation, float | None]
    """BD-rate in percent by method; None if a method is not applicable."""
    low: float | None
    """Lower end of the common range of quality in dB; None if no method is applicable."""
    high: float | None
    """Upper end of the common range of quality in dB; None if no method is applicable."""
    why: str
    """Reason why the first inapplicable method does not apply; empty if all methods apply."""
    spread: tuple[float, float] | None = None
    """Smallest and largest cubic BD-rate when each seed is compared on its own; None for fewer than two seeds."""


class RateGrid(NamedTuple):
    """Rates of all curves at common qualities."""

    start: float
    """Lowest quality in dB; the others follow in steps of `STEP`."""
    rates: list[list[float | None] | None]
    """Bits per pixel by curve, then by quality; None outside a curve, or for a curve that cannot be interpolated."""


def compare_curves(anchor: Curve, curve: Curve, measure: Measure) -> CurveComparison:
    """Compute the BD-rates of a curve against an anchor, or find the reason why they cannot be computed."""
    percent: dict[Interpolation, float | None] = {}
    low, high, why = None, None, ""
    for method in INTERPOLATIONS:
        try:
            result = bd_rate(anchor.values(measure), curve.values(measure), method)
        except CurveError as error:
            percent[method], why = None, why or str(error)
        else:
            percent[method], low, high = result
    return CurveComparison(percent, low, high, why, _spread(anchor, curve, measure))


def _spread(anchor: Curve, curve: Curve, measure: Measure) -> tuple[float, float] | None:
    """Return the smallest and the largest cubic BD-rate when each seed is compared on its own."""
    percents = []
    for seed, one in curve.seeds.items():
        # An anchor without seeds, e.g. a classical codec, is the anchor of every seed.
        other = anchor.seeds.get(seed) if anchor.seeds else anchor
        if other is None:
            continue
        try:
            percents.append(bd_rate(other.values(measure), one.values(measure), "cubic").percent)
        except CurveError:
            continue
    return (min(percents), max(percents)) if len(percents) > 1 else None


def rate_grid(curves: Sequence[Curve], measure: Measure) -> RateGrid:
    """Interpolate the rates of all curves at the same qualities."""
    values = [value for curve in curves for _, value in curve.values(measure)]
    if not values:
        return RateGrid(0.0, [None] * len(curves))
    start = float(np.ceil(min(values) / STEP) * STEP)
    qualities = (start + STEP * np.arange(int((max(values) - start) / STEP) + 1)).tolist()
    rates: list[list[float | None] | None] = []
    for curve in curves:
        try:
            rates.append(rate_at(curve.values(measure), qualities))
        except CurveError:
            rates.append(None)
    return RateGrid(start, rates)


def format_bd_rate_table(curves: Sequence[Curve], anchor: Curve, measure: Measure) -> list[str]:
    """Format a Markdown table that compares all other curves with `anchor`, best first, one line per curve."""
    rows = [(curve, compare_curves(anchor, curve, measure)) for curve in curves if curve is not anchor]
    rows.sort(key=lambda row: min((v for v in row[1].percent.values() if v is not None), default=np.inf))
    columns = [*(f"{name}, %" for name in INTERPOLATIONS.values()), "range, dB"]
    if has_seeds := any(compared.spread is not None for _, compared in rows):
        columns.append("cubic by seed, %")
    lines = [f"| against {anchor.title} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for curve, compared in rows:
        cells = ["–" if value is None else f"{value:+.2f}" for value in compared.percent.values()]
        cells.append(f"{compared.low:.2f} to {compared.high:.2f}" if compared.low is not None else compared.why)
        if has_seeds:
            cells.append("–" if compared.spread is None else "{:+.2f} to {:+.2f}".format(*compared.spread))
        lines.append(f"| {curve.title} | {' | '.join(cells)} |")
    return lines
