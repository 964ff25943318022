"""Draws the training curves of one or several runs from the metrics.csv in their folders, without any account."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jahp_pl.errors import first_line
from jahp_pl.evaluation import EvaluationError
from jahp_pl.files.atomic import resolved
from jahp_pl.report.figures import COLORS, STYLE, plain_log_ticks, save_figure
from jahp_pl.text import figure_text
from jahp_pl.training import METRICS_FILE
from jahp_pl.training.metrics_file import number_of, read_rows, step_of

NAME = "training"
"""Name of the figure's files, without suffix."""


class Panel(NamedTuple):
    """Plot of values that were logged in training and in validation."""

    title: str
    training: tuple[str, ...]
    """Columns of metrics.csv with training values; a run has at most one of them."""
    validation: tuple[str, ...] = ()
    """Columns with validation values; a run has at most one of them."""
    is_log: bool = False
    """Whether the vertical axis is logarithmic."""


PANELS = (
    Panel("Loss", ("train/loss",), ("val/loss",), is_log=True),
    Panel("Bits per pixel", ("train/bpp",), ("val/bpp",)),
    Panel("PSNR (dB)", ("train/psnr",), ("val/psnr",)),
    Panel("MS-SSIM (dB)", ("train/ms_ssim_db",), ("val/ms_ssim_db",)),
    Panel("Gradient norm, before clipping", ("train/grad_norm",), is_log=True),
    Panel("Learning rate", ("train/learning_rate",)),
)

Series = list[tuple[int, float]]
"""Points as (optimizer step, value), with finite values only."""
_MAX_VALUE = 1e100
"""Largest value to draw, far beyond those of float32, because matplotlib fails near the largest float."""


def read_series(run: Path) -> dict[str, Series]:
    """Read every column of a run's metrics.csv, by its name.

    Raises:
        EvaluationError: if the file cannot be read or has no rows.
    """
    path = run / METRICS_FILE
    series: dict[str, Series] = {}
    try:
        for row in read_rows(path):
            if (step := step_of(row)) is None:
                continue
            for name, text in row.items():
                value = number_of(text)
                if name != "step" and value is not None and abs(value) <= _MAX_VALUE:
                    series.setdefault(name, []).append((step, value))
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({first_line(error)}); give another run folder") from None
    if not series:
        raise EvaluationError(f"{path}: no metrics yet; wait for trainer.log_every_steps steps")
    return series


def draw_training(runs: Sequence[Path], folder: Path) -> list[Path]:
    """Draw the curves of several runs into one figure, saved as training.png and training.svg.

    Args:
        runs: run folders.
        folder: folder for both files.

    Returns:
        Paths of both files.

    Raises:
        EvaluationError: if a run's metrics cannot be read.
        WriteError: if the disk is full.
    """
    names = [resolved(run).name for run in runs]
    names = names if len(set(names)) == len(names) else [str(run) for run in runs]
    series = {name: read_series(run) for name, run in zip(names, runs, strict=True)}
    panels = [
        panel for panel in PANELS if any(_find(one, panel.training + panel.validation) for one in series.values())
    ]
    num_rows = -(-len(panels) // 2)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.6 * num_rows + 0.5), layout="constrained")
        grid = list(figure.subplots(num_rows, 2, squeeze=False).flat)
        for axes, panel in zip(grid, panels, strict=False):
            for number, (name, one) in enumerate(series.items()):
                _draw(axes, panel, one, COLORS[number % len(COLORS)], name)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), fontsize=8.5)
        return save_figure(figure, folder / NAME)


def _draw(axes: Axes, panel: Panel, series: dict[str, Series], color: str, name: str) -> None:
    if line := _find(series, panel.training):
        axes.plot(*zip(*line, strict=True), color=color, alpha=0.45, lw=1.1, label=figure_text(f"{name}, training"))
    if line := _find(series, panel.validation):
        label = figure_text(f"{name}, validation")
        axes.plot(*zip(*line, strict=True), color=color, marker="o", ms=3, lw=1.6, label=label)
    values = [value for column in panel.training + panel.validation for _, value in series.get(column, [])]
    if panel.is_log and values and min(values) > 0:
        axes.set_yscale("log")
        plain_log_ticks(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.set_title(panel.title, fontsize=9.5)
    axes.set_xlabel("Optimizer step", fontsize=8.5)


def _find(series: dict[str, Series], columns: Sequence[str]) -> Series:
    return next((series[column] for column in columns if column in series), [])
