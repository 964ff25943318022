"""Pictures of an evaluation: original, reconstruction and a classical codec side by side."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jahp_pl.codec.codec import Codec
from jahp_pl.evaluation.classical import CODECS, encode_at_least
from jahp_pl.evaluation.evaluate import Evaluation, ImageResult
from jahp_pl.files import write_atomically
from jahp_pl.images.io import decode_rgb

RGB = npt.NDArray[np.uint8]


class PicturePanel(NamedTuple):
    """One image in a row of a picture."""

    title: str
    pixels: RGB
    """(H, W, 3) uint8."""


CROP = 256
"""Side of the crops in pixels."""


def draw_evaluation(evaluation: Evaluation, codec: Codec, beside: str | None, path: Path) -> None:
    """Draw three images of an evaluation; in a comparison the best, median and worst, so that none is hand-picked.

    Args:
        evaluation: evaluation to draw; its originals and files are read again.
        codec: codec that made the files.
        beside: key of `classical.CODECS` of the comparison; None without one.
        path: path of the PNG.
    """
    by_gain = sorted(evaluation.images, key=_gain, reverse=True)
    chosen = {0: "best", len(by_gain) // 2: "median", len(by_gain) - 1: "worst"}
    rows = []
    for position, word in chosen.items():
        result = by_gain[position]
        original = decode_rgb(result.task.original.source)
        window = crop_with_most_detail(original, CROP)
        decoded = codec.decompress(result.task.file.read_bytes()).permute(1, 2, 0).numpy()
        ours = f"{codec.model.config.rung}: {result.row.file_bpp:.3f} bpp, {result.row.file_psnr:.2f} dB"
        where = f" ({word} of {len(by_gain)} against {evaluation.beside_title})" if beside is not None else ""
        row = [PicturePanel(f"{result.row.name}{where}", original[window]), PicturePanel(ours, decoded[window])]
        if beside is not None and result.beside is not None:
            other = encode_at_least(CODECS[beside], original, result.row.file_bytes)
            title = f"{CODECS[beside].title}: {result.beside.bpp:.3f} bpp, {result.beside.psnr:.2f} dB"
            row.append(PicturePanel(title, other.decode()[window]))
        rows.append(row)
    heading = f"{len(evaluation.images)} images: {evaluation.mean.file_bpp:.3f} bpp, {evaluation.mean.file_psnr:.2f} dB"
    if evaluation.beside_mean is not None:
        mean = evaluation.beside_mean
        heading += f";  {evaluation.beside_title}: {mean.bpp:.3f} bpp, {mean.psnr:.2f} dB"
    draw_comparison(rows, heading, path)


def _gain(result: ImageResult) -> float:
    return result.row.file_psnr - (result.beside.psnr if result.beside is not None else 0.0)


def crop_with_most_detail(image: RGB, size: int) -> tuple[slice, slice]:
    """Find the square crop with the strongest gradient, on a grid of half its size, as slices of rows and columns.

    Args:
        image: (H, W, 3) uint8.
        size: side in pixels; the whole image if it is smaller.
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
        rows: rows with equal numbers of panels.
        heading: line above all rows.
        path: path of the PNG.
    """
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(4.2 * columns, 4.55 * len(rows) + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=13)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row_axes, row in zip(axes, rows, strict=True):
        for ax, panel in zip(row_axes, row, strict=False):
            ax.imshow(panel.pixels, interpolation="nearest")
            ax.set_title(panel.title, fontsize=11)
            ax.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
