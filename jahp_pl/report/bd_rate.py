"""Computes BD-rates: the average difference in rate between two curves over their common range of quality, in percent
(Bjøntegaard, VCEG-M33)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Literal, NamedTuple

from jahp_pl.evaluation import EvaluationError
from jahp_pl.text import count_of

Interpolation = Literal["cubic", "pchip", "akima"]
INTERPOLATIONS: dict[Interpolation, str] = {"cubic": "cubic", "pchip": "PCHIP", "akima": "Akima"}
"""Methods that interpolate the log rate over quality, with their titles: one cubic polynomial fitted to all points, or
piecewise polynomials through all points."""
MIN_POINTS: dict[Interpolation, int] = {"cubic": 4, "pchip": 2, "akima": 2}
"""Minimum number of points that each method needs."""
Pairs = Sequence[tuple[float, float]]
"""Points of a curve as (bits per pixel, dB)."""


class CurveError(EvaluationError):
    """Error that two curves cannot be compared; the message is one line with the reason."""


class BDRate(NamedTuple):
    """Comparison of two curves."""

    percent: float
    """Difference in rate, in percent; negative if the tested curve needs less."""
    low: float
    """Lower end of the common range of quality, in dB."""
    high: float
    """Upper end of the common range of quality, in dB."""


def bd_rate(anchor: Pairs, test: Pairs, method: Interpolation) -> BDRate:
    """Compute the BD-rate of `test` against `anchor` over their whole common range of quality.

    Args:
        anchor, test: points in order of increasing rate.
        method: interpolation method.

    Raises:
        CurveError: if the qualities do not overlap, the method needs more points, or quality falls as rate rises.
    """
    _check_points(anchor, "the anchor", method)
    _check_points(test, "the curve", method)
    low, high = max(anchor[0][1], test[0][1]), min(anchor[-1][1], test[-1][1])
    if low >= high:
        raise CurveError(
            f"no common quality: the curve has {test[0][1]:.2f} to {test[-1][1]:.2f} dB, the anchor "
            f"{anchor[0][1]:.2f} to {anchor[-1][1]:.2f} dB; measure wider ranges"
        )
    percent = _package().bd_rate(
        *zip(*anchor, strict=True), *zip(*test, strict=True), method, require_matching_points=False, min_overlap=0
    )
    return BDRate(float(percent), low, high)


def rate_at(pairs: Pairs, qualities: Sequence[float]) -> list[float | None]:
    """Interpolate the rate, in bits per pixel, at given qualities in dB; None for qualities outside the curve.

    PCHIP interpolates the log rate over quality.

    Raises:
        CurveError: as for `bd_rate`.
    """
    _check_points(pairs, "the curve", "pchip")
    rates, values = zip(*pairs, strict=True)
    _, of_quality, _ = _package().bd_rate(
        rates, values, rates, values, "pchip", require_matching_points=False, interpolators=True, min_overlap=0
    )
    inside = [values[0] <= quality <= values[-1] for quality in qualities]
    return [float(10 ** of_quality(q)) if ok else None for q, ok in zip(qualities, inside, strict=True)]


def _check_points(pairs: Pairs, name: str, method: Interpolation) -> None:
    """Refuse curves that have too few points, or whose quality falls as the rate rises."""
    if len(pairs) < MIN_POINTS[method]:
        found = count_of(len(pairs), "point")
        remaining = [INTERPOLATIONS[m] for m, least in MIN_POINTS.items() if len(pairs) >= least]
        left = f"{' and '.join(remaining)} remain" if remaining else "no method remains"
        raise CurveError(f"{INTERPOLATIONS[method]} needs {MIN_POINTS[method]} points, {name} has {found}; {left}")
    rates, values = zip(*pairs, strict=True)
    if any(b <= a for series in (rates, values) for a, b in pairwise(series)):
        raise CurveError(f"quality must rise with the rate, but along {name} it does not; measure other qualities")


def _package() -> ModuleType:
    try:
        import bjontegaard
    except ImportError:
        raise EvaluationError(
            "BD-rates need the package bjontegaard, which is not installed; pip install 'jahp_pl[report]'"
        ) from None

    package: ModuleType = bjontegaard
    return package
