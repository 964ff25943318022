"""Draws pictures of evaluations: the original, the models' and a classical codec's reconstructions side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jahp_pl.codec.codec import Codec
from jahp_pl.evaluation.classical import CODECS, encode_at_least
from jahp_pl.evaluation.evaluate import Evaluation, ImageResult
from jahp_pl.files.atomic import write_atomically
from jahp_pl.images.io import RGB, decode_rgb
from jahp_pl.text import count_of, figure_text


class PicturePanel(NamedTuple):
    """One image in a row of a picture, with its title."""

    title: str
    pixels: RGB
    """(H, W, 3) uint8."""


CROP = 256
"""Side of the crops in pixels."""


class DrawnModel(NamedTuple):
    """Model in a picture, with its results."""

    name: str
    codec: Codec
    """Codec that made the files of the evaluation."""
    evaluation: Evaluation


def draw_evaluations(models: Sequence[DrawnModel], compare: str | None, path: Path) -> None:
    """Draw the images with the best, the median and the worst result, as each model reconstructs them.

    The first model's results decide which images these are: by its gain over the classical codec, or by PSNR without a
    comparison. Originals and compressed files are read again.

    Args:
        models: at least one model; all evaluated on the same images.
        compare: key in `classical.CODECS` of the codec to compare with; None for no comparison.
        path: path of the PNG.
    """
    first = models[0].evaluation
    order = sorted(range(len(first.images)), key=lambda number: _gain(first.images[number]), reverse=True)
    chosen = {0: "best", len(order) // 2: "median", len(order) - 1: "worst"}
    rows = []
    for position, word in chosen.items():
        results = [model.evaluation.images[order[position]] for model in models]
        original = decode_rgb(results[0].task.original.source)
        window = crop_with_most_detail(original, CROP)
        where = f" ({word} of {len(order)} against {first.classical_title})" if compare is not None else ""
        row = [PicturePanel(f"{results[0].row.name}{where}", original[window])]
        for model, result in zip(models, results, strict=True):
            decoded = model.codec.decompress(result.task.file.read_bytes()).permute(1, 2, 0).numpy()
            title = f"{model.name}: {result.row.file_bpp:.3f} bpp, {result.row.file_psnr:.2f} dB"
            row.append(PicturePanel(title, decoded[window]))
        if compare is not None and results[0].classical is not None:
            other = encode_at_least(CODECS[compare], original, results[0].row.file_bytes)
            title = f"{CODECS[compare].title}: {results[0].classical.bpp:.3f} bpp, {results[0].classical.psnr:.2f} dB"
            row.append(PicturePanel(title, other.decode()[window]))
        rows.append(row)
    draw_comparison(rows, _heading(models), path)


def _heading(models: Sequence[DrawnModel]) -> str:
    """Format the means of all models for the heading."""
    figures = []
    for model in models:
        mean, name = model.evaluation.mean, f"{model.name}: " if len(models) > 1 else ""
        figures.append(f"{name}{mean.file_bpp:.3f} bpp, {mean.file_psnr:.2f} dB")
    first = models[0].evaluation
    if first.classical_mean is not None:
        where = f" compared with {models[0].name}" if len(models) > 1 else ""
        figures.append(
            f"{first.classical_title}{where}: {first.classical_mean.bpp:.3f} bpp, {first.classical_mean.psnr:.2f} dB"
        )
    return f"{count_of(len(first.images), 'image')}: {';  '.join(figures)}"


def _gain(result: ImageResult) -> float:
    """Return the model's gain in PSNR over the classical codec in dB, or its PSNR without a comparison."""
    return result.row.file_psnr - (result.classical.psnr if result.classical is not None else 0.0)


def crop_with_most_detail(image: RGB, size: int) -> tuple[slice, slice]:
    """Find the square crop with the strongest gradients, and return its rows and columns as slices.

    Args:
        image: (H, W, 3) uint8.
        size: side of the crop in pixels; candidates lie on a grid of half this size. A side that is shorter is taken
            whole.
    """
    gray = image.mean(axis=2)
    detail = np.abs(np.diff(gray, axis=0))[:, :-1] + np.abs(np.diff(gray, axis=1))[:-1]
    best, where = -1.0, (slice(0, size), slice(0, size))
    for top in range(0, max(1, image.shape[0] - size + 1), size // 2):
        for left in range(0, max(1, image.shape[1] - size + 1), size // 2):
            window = (slice(top, top + size), slice(left, left + size))
            strength = float(detail[window].mean())
            if strength > best:
                best, where = strength, window
    return where


def draw_comparison(rows: list[list[PicturePanel]], heading: str, path: Path) -> None:
    """Save rows of panels as a PNG.

    Args:
        rows: rows with the same number of panels.
        heading: line above all rows.
        path: path of the PNG.
    """
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(4.2 * columns, 4.55 * len(rows) + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(figure_text(heading), fontsize=13)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row_axes, row in zip(axes, rows, strict=True):
        for ax, panel in zip(row_axes, row, strict=False):
            ax.imshow(panel.pixels, interpolation="nearest")
            ax.set_title(figure_text(panel.title), fontsize=11)
            ax.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
