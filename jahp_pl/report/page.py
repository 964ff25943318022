"""Builds a report as one HTML page that works offline because it contains all data, styles, scripts and pictures."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jahp_pl.report.bd_rate import INTERPOLATIONS
from jahp_pl.report.comparison import MAX_ANCHORS, STEP, compare_curves, rate_grid
from jahp_pl.report.curves import MEASURES, Curve, CurvePoint, QualityRow
from jahp_pl.report.previews import Comparison, data_uris
from jahp_pl.text import count_of


def build_page(
    curves: Sequence[Curve], anchor: Curve, comparisons: Sequence[Comparison], title: str, footer: str
) -> str:
    """Build the page, and return its HTML.

    Args:
        curves: curves in the order of the legend.
        anchor: curve that savings initially refer to.
        comparisons: pictures at equal rate; if empty, the page omits them.
        title: heading.
        footer: text of the footer.
    """
    data = page_data(curves, anchor, comparisons, title, footer)
    # Inside a script element, only its end tag and the start of a comment have special meaning.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    files = resources.files("jahp_pl.report") / "web"
    result = (files / "page.html").read_text(encoding="utf-8").replace("__TITLE__", html.escape(title))
    for mark, name in (("__STYLE__", "style.css"), ("__CHARTS__", "charts.js"), ("__PAGE__", "page.js")):
        result = result.replace(mark, (files / name).read_text(encoding="utf-8").strip())
    return result.replace("__DATA__", text)


def page_data(
    curves: Sequence[Curve], anchor: Curve, comparisons: Sequence[Comparison], title: str, footer: str
) -> dict[str, Any]:
    """Collect everything that the page's scripts draw, as values that JSON can hold."""
    position = next(number for number, curve in enumerate(curves) if curve is anchor)
    anchors = range(len(curves)) if len(curves) <= MAX_ANCHORS else [position]
    names = sorted({name for curve in curves for point in curve.points for name in point.images})
    count = len(curves[0].images)
    return {
        "title": title,
        "subtitle": f"{count_of(count, 'image')}, {count_of(len(curves), 'curve')}. "
        "Rates are those of whole files, qualities those of decoded 8-bit RGB pictures.",
        "footer": footer,
        "anchor": position,
        "methods": INTERPOLATIONS,
        "curves": [_curve(curve, names) for curve in curves],
        "image_names": names,
        "bd": {number: {measure: _bd(curves, curves[number], measure) for measure in MEASURES} for number in anchors},
        "savings": {measure: _grid(curves, measure) for measure in MEASURES},
        "compare": [
            _comparison(c, sources) for c, sources in zip(comparisons, data_uris(comparisons), strict=True) if c.items
        ],
    }


def _curve(curve: Curve, names: Sequence[str]) -> dict[str, Any]:
    """Convert a curve to plain values."""
    images = {name: [_measured(p.images[name], p) for p in curve.points if name in p.images] for name in names}
    return {
        "title": curve.title,
        "kind": curve.kind,
        "knob": "" if curve.kind == "model" else "setting",
        "source": curve.source,
        "points": [_measured(point.mean, point) | _details(point) for point in curve.points],
        "images": {name: rows for name, rows in images.items() if rows},
    }


def _measured(row: QualityRow, point: CurvePoint) -> dict[str, Any]:
    return {"quality": point.quality, "bpp": _short(row.bpp), "psnr": _short(row.psnr), "ms_ssim": _short(row.ms_ssim)}


def _details(point: CurvePoint) -> dict[str, Any]:
    channels = point.raw.get("bpp_per_channel")
    return {
        "seconds": [_short(s) for s in point.seconds] if point.seconds is not None else None,
        "rate": point.raw.get("mean", {}).get("rate"),
        "channels": {k: [_short(v) for v in values] for k, values in channels.items()} if channels else None,
    }


def _bd(curves: Sequence[Curve], anchor: Curve, measure: Any) -> list[dict[str, Any]]:
    rows = [compare_curves(anchor, curve, measure) for curve in curves]
    return [
        {method: _short(value) for method, value in row.percent.items()}
        | {"low": row.low, "high": row.high, "why": row.why}
        | {"spread": None if row.spread is None else [_short(value) for value in row.spread]}
        for row in rows
    ]


def _grid(curves: Sequence[Curve], measure: Any) -> dict[str, Any]:
    grid = rate_grid(curves, measure)
    rates = [None if row is None else [_short(value) for value in row] for row in grid.rates]
    return {"start": grid.start, "step": STEP, "rates": rates}


def _comparison(comparison: Comparison, sources: Sequence[str]) -> dict[str, Any]:
    """Convert a comparison of pictures to plain values."""
    items = [
        {
            "curve": item.curve,
            "bpp": _short(item.bpp),
            "psnr": _short(item.psnr) or 99.0,
            "ms_ssim": _short(item.ms_ssim),
            "source": source,
        }
        for item, source in zip(comparison.items, sources[1:], strict=True)
    ]
    height, width = comparison.original.shape[:2]
    facts = {"name": comparison.name, "why": comparison.why, "bpp": _short(comparison.bpp)}
    return facts | {"width": width, "height": height, "source": sources[0], "items": items}


def _short(value: float | None) -> float | None:
    """Round to six digits; return None for values that JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
