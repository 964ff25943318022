"""Draws the plots of a report as PNG and SVG, for papers and READMEs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from jahp_pl.files.atomic import write_atomically
from jahp_pl.report.comparison import STEP, rate_grid
from jahp_pl.report.curves import MEASURES, Curve, Measure
from jahp_pl.text import figure_text

COLORS = ("#0072b2", "#d55e00", "#00896a", "#b0479a", "#c98a00", "#3d9fdd", "#7d7a1c", "#6b7178")
"""Colors of curves, distinguishable with a color vision deficiency; the page uses them too."""
MARKERS = ("o", "s", "D", "^", "v")
DASHES = {"model": "-", "classical": (0, (5, 2.5)), "published": (0, (1, 1.6))}
MAX_IMAGES = 48
"""Maximum number of images with a plot of their own; matplotlib refuses figures of more than 65536 pixels."""
RATE_PARTS = {
    "y": ("latents y", COLORS[0]),
    "z": ("hyper-latents z", COLORS[4]),
    "header": ("header", COLORS[1]),
    "coder": ("range coder", COLORS[7]),
}
"""Name and color of each part of a file's rate; the page uses them too."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "jahp", "font.size": 9.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#ebedef", "axes.edgecolor": "#9aa1aa",
    "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip


def draw_all(curves: Sequence[Curve], anchor: Curve, folder: Path) -> list[str]:
    """Write every plot for which the curves have data.

    Args:
        curves: curves of the report.
        anchor: curve that savings refer to.
        folder: folder for NAME.png and NAME.svg.

    Returns:
        Names of the plots.
    """
    plots: dict[str, Callable[[], Figure | None]] = {}
    for measure in MEASURES:
        plots[f"rd-{measure}"] = partial(draw_rate_distortion, curves, measure)
        plots[f"savings-{measure}"] = partial(draw_savings, curves, anchor, measure)
        plots[f"images-{measure}"] = partial(draw_images, curves, measure)
    plots |= {"rate-split": partial(draw_rate_split, curves), "channels": partial(draw_channels, curves)}
    plots["times"] = partial(draw_times, curves)
    drawn = []
    with mpl.rc_context(STYLE):
        for name, plot in plots.items():
            if (figure := plot()) is not None:
                save_figure(figure, folder / name)
                drawn.append(name)
    return drawn


def draw_rate_distortion(curves: Sequence[Curve], measure: Measure) -> Figure | None:
    """Draw quality against rate; if there are models, limit the plot to their range of rates."""
    figure, axes = _figure(8.6, 5.2)
    if not _lines(axes, curves, measure, None):
        return None
    _limit_axes(axes, curves, measure, None)
    axes.set(xlabel="Rate (bits per pixel)", ylabel=f"{MEASURES[measure]} (dB)")
    _add_legend(figure, axes)
    return figure


def draw_savings(curves: Sequence[Curve], anchor: Curve, measure: Measure) -> Figure | None:
    """Draw the percentage of the anchor's bits that each curve saves, against quality."""
    figure, axes = _figure(8.6, 4.6)
    grid = rate_grid(curves, measure)
    base = next(rates for rates, curve in zip(grid.rates, curves, strict=True) if curve is anchor)
    lowest = 0.0
    for number, (curve, rates) in enumerate(zip(curves, grid.rates, strict=True)):
        if curve is anchor or rates is None or base is None:
            continue
        pairs = [
            (grid.start + STEP * k, 100 * (1 - rate / other))
            for k, (rate, other) in enumerate(zip(rates, base, strict=True))
            if rate is not None and other is not None
        ]
        if pairs:
            axes.plot(
                *zip(*pairs, strict=True), color=_color(number), ls=DASHES[curve.kind], label=figure_text(curve.title)
            )
            lowest = min(lowest, *(saved for _, saved in pairs))
    if not axes.lines:
        return None
    axes.axhline(0, color="#5a626d", lw=1)
    axes.set_ylim(bottom=max(-150, lowest * 1.05) or None)
    axes.set(xlabel=f"{MEASURES[measure]} (dB)", ylabel=f"Bits saved against {figure_text(anchor.title)} (%)")
    _add_legend(figure, axes)
    return figure


def draw_images(curves: Sequence[Curve], measure: Measure) -> Figure | None:
    """Draw quality against rate in one small plot per image; if there are too many, only the first by name."""
    names = sorted({name for curve in curves for point in curve.points for name in point.images})[:MAX_IMAGES]
    if not names:
        return None
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.4 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    entries: dict[str, Artist] = {}
    for axes, name in zip(grid.flat, names, strict=False):
        _lines(axes, curves, measure, name)
        _limit_axes(axes, curves, measure, name)
        axes.set_title(figure_text(name), fontsize=9)
        axes.tick_params(labelsize=7.5)
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    if not entries:
        return None
    figure.supxlabel("Rate (bits per pixel)", fontsize=10)
    figure.supylabel(f"{MEASURES[measure]} (dB)", fontsize=10)
    columns = min(4, len(entries))
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns, fontsize=8.5)
    return figure


def draw_rate_split(curves: Sequence[Curve]) -> Figure | None:
    """Draw how the rate of each model's files splits into latents, hyper-latents, header and coding overhead."""
    pairs = [(curve, point) for curve in curves for point in curve.points if "rate" in point.raw.get("mean", {})]
    points = [(f"{curve.title}, {point.quality}".rstrip(", "), point.raw["mean"]["rate"]) for curve, point in pairs]
    if not points:
        return None
    figure, axes = _figure(7.2, 0.3 * len(points) + 1.4)
    left = [0.0] * len(points)
    for part, (name, color) in RATE_PARTS.items():
        widths = [max(0.0, rate[part]) for _, rate in points]
        axes.barh(range(len(points)), widths, left=left, color=color, label=name, height=0.62)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(points)), [figure_text(label) for label, _ in points])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Rate (bits per pixel)")
    figure.legend(loc="outside upper right", ncols=len(RATE_PARTS))
    return figure


def draw_channels(curves: Sequence[Curve]) -> Figure | None:
    """Draw the bits of each channel, sorted; one line per point of a model."""
    points = [(curve, point) for curve in curves for point in curve.points if point.raw.get("bpp_per_channel")]
    if not points:
        return None
    figure, axes = _figure(8.6, 4.6)
    for number, curve in enumerate(curves):
        own = [point for other, point in points if other is curve]
        for rank, point in enumerate(own):
            for part, dash in (("y", "-"), ("z", (0, (3, 2)))):
                values = [value for value in point.raw["bpp_per_channel"][part] if value > 1e-6]
                label = figure_text(curve.title) if part == "y" and rank == len(own) - 1 else None
                alpha = 0.35 + 0.65 * (rank + 1) / len(own)
                axes.plot(
                    range(1, len(values) + 1), values, color=_color(number), ls=dash, alpha=alpha, label=label, lw=1.3
                )
    axes.set_yscale("log")
    axes.set(xlabel="Channels, most expensive first (solid: latents y, dashed: hyper-latents z)")
    axes.set_ylabel("Bits per pixel")
    _add_legend(figure, axes)
    return figure


def draw_times(curves: Sequence[Curve]) -> Figure | None:
    """Draw median seconds per image for encoding and decoding; lines span the settings of a curve."""
    timed = [
        (number, curve, [point.seconds for point in curve.points if point.seconds is not None])
        for number, curve in enumerate(curves)
    ]
    timed = [row for row in timed if row[2]]
    if not timed:
        return None
    figure, axes = _figure(7.2, 0.5 * len(timed) + 1.3)
    for row, (number, _, seconds) in enumerate(timed):
        for offset, way in ((-0.17, 0), (0.17, 1)):
            values = sorted(max(1e-4, pair[way]) for pair in seconds)
            axes.plot([values[0], values[-1]], [row + offset] * 2, color=_color(number), lw=4, alpha=0.3)
            fill = _color(number) if way == 0 else "white"
            axes.plot(values[len(values) // 2], row + offset, MARKERS[way], mfc=fill, mec=_color(number))
    axes.set_yticks(range(len(timed)), [figure_text(curve.title) for _, curve, _ in timed])
    axes.invert_yaxis()
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis)
    axes.set_xlabel("Seconds per image (filled: encode, hollow: decode)")
    return figure


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8.5)


def _lines(axes: Axes, curves: Sequence[Curve], measure: Measure, image: str | None) -> bool:
    """Draw a line for every curve that has data, and return whether any has."""
    for number, curve in enumerate(curves):
        if pairs := curve.values(measure, image):
            axes.plot(
                *zip(*pairs, strict=True), color=_color(number), ls=DASHES[curve.kind], label=figure_text(curve.title),
                marker=MARKERS[number // len(COLORS) % len(MARKERS)] if len(pairs) <= 40 else "",
                ms=3.6 if image is None else 2.6, lw=1.9 if curve.kind == "model" else 1.4,
                zorder=3 - (curve.kind != "model"),
            )  # fmt: skip
    return bool(axes.lines)


def _limit_axes(axes: Axes, curves: Sequence[Curve], measure: Measure, image: str | None) -> None:
    """Limit the axes to the models' range of rates, and to the qualities that any curve has at those rates."""
    rates = [bpp for curve in curves if curve.kind == "model" for bpp, _ in curve.values(measure, image)]
    if not rates:
        axes.set_xlim(left=0)
        return
    right = 1.35 * max(rates)
    inside = [value for curve in curves for bpp, value in curve.values(measure, image) if bpp <= right]
    pad = 0.05 * (max(inside) - min(inside)) or 1.0
    axes.set_xlim(0, right)
    axes.set_ylim(min(inside) - pad, max(inside) + pad)


class _PlainLogFormatter(LogFormatter):
    """Formatter that labels the same ticks as `LogFormatter`, but with numbers such as 0.3 instead of 3e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers such as 0.3, instead of 3 x 10^-1."""
    axis.set_major_formatter(_PlainLogFormatter())
    axis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(2, 0.5)))


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure to PATH.png and PATH.svg, and return both paths."""
    paths = []
    for suffix, options in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, **options)
        paths.append(path.with_name(f"{path.name}.{suffix}"))
        write_atomically(paths[-1], buffer.getvalue())
    return paths
