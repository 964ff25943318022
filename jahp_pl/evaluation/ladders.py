"""A classical codec over its ladder of qualities: real files, per image and mean, in the form of an evaluation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from jahp_pl.data.images import RGB, decode_rgb
from jahp_pl.evaluation.classical import CODECS, ClassicalCodec, encode
from jahp_pl.files import write_atomically
from jahp_pl.quality import decibels, ms_ssim_8bit, psnr


class ClassicalRow(NamedTuple):
    """What one file cost and gave, or the means over several; named as in `codec.roundtrip.CodingRow`."""

    name: str
    """Of the image."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    file_bytes: int
    """Length of the whole file."""
    file_bpp: float
    """Bits per pixel of the whole file."""
    file_psnr: float
    """dB, of the decoded 8-bit image."""
    file_ms_ssim: float | None
    """0 to 1; None with a side too short for it (`quality.MIN_SIDE`)."""
    encode_seconds: float
    """Pixels to file, in memory."""
    decode_seconds: float
    """File to pixels, in memory."""


def code_point(codec: ClassicalCodec, images: Sequence[Path], quality: int) -> list[ClassicalRow]:
    """Code every image at one quality, decode it, measure.

    Raises:
        EvaluationError: the codec's package is not installed.
        ImageError: an image that cannot be read.
    """
    return [_code(codec, decode_rgb(path), path.name, quality) for path in images]


def point_to_json(quality: int, rows: Sequence[ClassicalRow]) -> dict[str, Any]:
    """One point of a curve as plain values, means over images of equal weight."""
    return {"quality": quality, "mean": _plain(_mean(rows)), "images": [_plain(row) for row in rows]}


def run_ladders(
    names: Sequence[str],
    images: Sequence[Path],
    out: Path,
    provenance: dict[str, Any],
    force: bool = False,
    progress: Callable[[str, int, dict[str, Any]], object] = lambda *_: None,
) -> dict[str, Any]:
    """Curves of several codecs, written to a file after each point; points that are in it already are kept.

    Args:
        names: keys of `classical.CODECS`.
        images: paths.
        out: results; curves of other codecs in it stay.
        provenance: of what is measured now.
        force: measure points again that are there.
        progress: called with codec, number of points done, and each point, measured or kept.

    Returns:
        What is in the file: `{"curves": [...]}`.

    Raises:
        EvaluationError, ImageError, WriteError: see `code_point` and `files`.
    """
    content: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"curves": []}
    for name in names:
        codec = CODECS[name]
        head = {"name": name, "title": codec.title, "kind": "classical", "knob": codec.knob}
        head |= {"settings": codec.settings()}
        old = next((curve for curve in content["curves"] if curve["name"] == name), None)
        is_same = old is not None and {key: old.get(key) for key in head} == head and not force
        points = {point["quality"]: point for point in old["points"]} if old is not None and is_same else {}
        measured = old["provenance"] if old is not None and is_same else provenance
        for done, quality in enumerate(codec.ladder, start=1):
            if quality not in points or not _is_of(points[quality], images):
                points[quality] = point_to_json(quality, code_point(codec, images, quality))
                measured = provenance
                chosen = [points[q] for q in codec.ladder if q in points]
                others = [curve for curve in content["curves"] if curve["name"] != name]
                content = {"curves": [*others, {**head, "provenance": measured, "points": chosen}]}
                write_atomically(out, (json.dumps(content, indent=1) + "\n").encode())
            progress(name, done, points[quality])
    return content


def _is_of(point: dict[str, Any], images: Sequence[Path]) -> bool:
    return [row["name"] for row in point["images"]] == [path.name for path in images]


def _code(codec: ClassicalCodec, image: RGB, name: str, quality: int) -> ClassicalRow:
    start = time.perf_counter()
    file = encode(codec, image, quality)
    coded = time.perf_counter()
    shown = file.decode()
    decoded = time.perf_counter()
    pair = [torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None] for p in (image, shown)]
    similarity = ms_ssim_8bit(*pair)
    return ClassicalRow(
        name=name,
        width=image.shape[1],
        height=image.shape[0],
        file_bytes=len(file.data),
        file_bpp=8 * len(file.data) / (image.shape[0] * image.shape[1]),
        file_psnr=float(psnr(*pair)),
        file_ms_ssim=None if similarity is None else float(similarity),
        encode_seconds=coded - start,
        decode_seconds=decoded - coded,
    )


def _mean(rows: Sequence[ClassicalRow]) -> ClassicalRow:
    def mean(name: str) -> float:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        return math.fsum(values) / len(values) if values else math.nan

    similarity = mean("file_ms_ssim")
    return ClassicalRow(
        name="mean",
        width=round(mean("width")),
        height=round(mean("height")),
        file_bytes=round(mean("file_bytes")),
        file_bpp=mean("file_bpp"),
        file_psnr=mean("file_psnr"),
        file_ms_ssim=None if math.isnan(similarity) else similarity,
        encode_seconds=mean("encode_seconds"),
        decode_seconds=mean("decode_seconds"),
    )


def _plain(row: ClassicalRow) -> dict[str, Any]:
    similarity = row.file_ms_ssim
    rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in row._asdict().items()}
    return rounded | ({} if similarity is None else {"file_ms_ssim_db": round(decibels(similarity), 4)})
