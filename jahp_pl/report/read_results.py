"""Reads result files as curves: evaluations of models, one point each, and files with whole curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, get_args

from jahp_pl.config import with_current_names
from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.image_set import may_be_same_image
from jahp_pl.files import json_content
from jahp_pl.files.json_content import FINITE, Nullable, first_mismatch
from jahp_pl.images.kodak import KODAK_NAMES
from jahp_pl.measurement.rates import RateSplit
from jahp_pl.quality import ms_ssim_to_decibels
from jahp_pl.report.curves import Curve, CurveKind, CurvePoint, QualityRow
from jahp_pl.report.model_curves import entropy_model_order, model_curve, sorted_by_rate, source_of, title_of
from jahp_pl.text import count_of

_PROVENANCE = {
    "model?": {"entropy_model": str, "num_components": int, "likelihood": str, "num_levels?": int},
    "training?": {"seed?": Nullable(int), "loss?": {"distortion?": str, "lmbda?": Nullable(float)}},
    "threads?": int,
    "date?": str,
    "effort?": int,
    "fingerprint?": str,
}
_ROW = {
    "file_bpp": float,
    "file_psnr?": Nullable(float),
    "file_ms_ssim?": Nullable(float),
    "width?": int,
    "height?": int,
    "encode_seconds?": float,
    "decode_seconds?": float,
    "rate?": dict.fromkeys(RateSplit._fields, FINITE),
}
_POINT = {
    "mean": _ROW,
    "images?": [_ROW | {"name": str}],
    "provenance?": _PROVENANCE,
    "bpp_per_channel?": Nullable({"y": [FINITE], "z": [FINITE]}),
    "folder?": str,
    "target?": dict.fromkeys(("quality?", "bpp?", "size?", "psnr?", "level?"), Nullable(float)),
}
_EVALUATION = _POINT | {"images": None, "provenance": None}
_CURVE = {"name": str, "title": str, "kind": str, "points": [_POINT], "settings?": str, "source?": str}
_MEASURED_MODEL = {"points": [{"provenance": {"model": {"entropy_model": str}}}]}
"""Expected content of result files, for `json_content.first_mismatch`; entries that nothing reads are left out."""
_MIN_BPP, _MAX_BPP, _MAX_DECIBELS = 1e-9, 1e9, 1000.0
"""Limits of rates and qualities, far beyond any file, because tables and plots of absurd ones would take hours."""


def read_curves(paths: Iterable[Path]) -> list[Curve]:
    """Read curves from result files; a folder stands for all results directly in it.

    Evaluations of models with the same architecture, or the same `--curve` name, become points of one curve. Models
    that differ only in their seed are averaged into one point.

    Raises:
        EvaluationError: if a file is missing, damaged or not a result, files cover different images, or models with
            the same lambda differ in more than their seed.
    """
    curves: list[Curve] = []
    evaluations: dict[str, list[CurvePoint]] = {}
    for path in _files(paths):
        content = _read(path)
        try:
            if "curves" in content:
                curves += [_curve(entry, path) for entry in content["curves"]]
            else:
                point = _point(content, path)
                evaluations.setdefault(title_of(content["provenance"]), []).append(point)
        except EvaluationError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"without {error}" if isinstance(error, KeyError) else str(error)
            raise EvaluationError(
                f"{path}: is damaged, or not a result ({reason}); make it again with `jahp evaluate` or "
                "`jahp classical`"
            ) from None
    models = [model_curve(title, points) for title, points in evaluations.items()]
    models += [curve for curve in curves if curve.kind == "model"]
    curves = sorted(models, key=entropy_model_order) + [curve for curve in curves if curve.kind != "model"]
    if not curves:
        raise EvaluationError("no results; give files that `jahp evaluate` or `jahp classical` wrote")
    check_same_images(curves)
    return _unique(curves)


def check_same_images(curves: Sequence[Curve]) -> None:
    """Refuse curves that are means over different images.

    Raises:
        EvaluationError: if images differ; the message names two curves and the first image that differs.
    """
    first = curves[0]
    for other in curves[1:]:
        if difference := sorted(first.images ^ other.images):
            raise EvaluationError(
                f"{other.title} covers {count_of(len(other.images), 'image')}, {first.title} {len(first.images)} "
                f"(first difference: {difference[0]}); a comparison needs results of the same images"
            )
    known: dict[str, list[tuple[Curve, QualityRow]]] = {}
    for curve in curves:
        for image in (image for point in curve.points for image in point.images.values()):
            others = known.setdefault(image.name, [])
            for one, seen in others:
                if not may_be_same_image((seen.size, seen.pixels), (image.size, image.pixels)):
                    raise EvaluationError(
                        f"{image.name} is one image in the results of {one.title}, but another in those of "
                        f"{curve.title}; a comparison needs results of the same images"
                    )
            if all((seen.size, seen.pixels) != (image.size, image.pixels) for _, seen in others):
                others.append((curve, image))


def _files(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        inside = sorted(one for one in path.iterdir() if one.suffix == ".json") if path.is_dir() else [path]
        if not inside:
            raise EvaluationError(f"{path}: has no results (*.json); give files that `jahp evaluate` wrote")
        found += inside
    return list(dict.fromkeys(found))


def _read(path: Path) -> dict[str, Any]:
    """Read a results file of either kind."""
    if not path.is_file():
        raise EvaluationError(f"{path}: no such results file; check the path")
    try:
        content = json_content.read(path, with_current_names)
    except ValueError as error:
        raise EvaluationError(f"{path}: is not JSON ({error}); make it again") from None
    is_evaluation = isinstance(content, dict) and {"mean", "images", "provenance"} <= set(content)
    if not is_evaluation and not (isinstance(content, dict) and isinstance(content.get("curves"), list)):
        raise EvaluationError(f"{path}: was written neither by `jahp evaluate` nor by `jahp classical`; leave it out")
    if mismatch := first_mismatch(content, {"curves": [_CURVE]} if "curves" in content else _EVALUATION):
        raise EvaluationError(f"{path}: is damaged, {mismatch} is missing or has the wrong type; make it again")
    result: dict[str, Any] = content
    return result


def _curve(entry: Mapping[str, Any], path: Path) -> Curve:
    """Convert one entry of a file with several curves."""
    points = tuple(_point(point, path) for point in entry["points"])
    title, kind, key = str(entry["title"]), entry["kind"], entry["name"]
    if kind not in get_args(CurveKind):
        raise ValueError(f"kind {kind!r} of {title}")
    if kind == "model" and (mismatch := first_mismatch(entry, _MEASURED_MODEL)):
        raise ValueError(f"{title} lacks {mismatch}")
    if not points:
        raise ValueError(f"{title} has no points")
    covered = {frozenset(point.images) for point in points}
    if len(covered) > 1:
        raise EvaluationError(f"{path}: the points of {title} cover different images; code them again")
    names = KODAK_NAMES if entry.get("images") == "kodak" else covered.pop()
    source = entry.get("source") or source_of(entry.get("settings", ""), entry.get("provenance", {}))
    return Curve(title, kind, sorted_by_rate(points), names, key if kind == "classical" else "", source)


def _point(content: Mapping[str, Any], path: Path) -> CurvePoint:
    """Convert an evaluation, or one entry of a curve, to a point."""
    rows = {}
    for row in content.get("images", ()):
        name = Path(row["name"]).with_suffix("").as_posix()
        _check_inside(name)
        if name in rows:
            raise EvaluationError(f"{path}: two images are called {name}; rename one of them and code them again")
        rows[name] = row
    images = {name: _measured(row, name) for name, row in rows.items()}
    _check_inside(content.get("folder", ""))
    mean = _measured(content["mean"], "mean")
    times = [
        [row[f"{way}_seconds"] for row in rows.values() if math.isfinite(row.get(f"{way}_seconds", math.nan))]
        for way in ("encode", "decode")
    ]
    # Medians, because a single image that was coded while the machine was busy would dominate the means.
    seconds = (float(median(times[0])), float(median(times[1]))) if all(times) else None
    quality = content["quality"] if "quality" in content else _lmbda(content["provenance"])
    raw = {key: value for key, value in content.items() if key != "images"}
    return CurvePoint("" if quality is None else str(quality), mean, images, seconds, raw, path)


def _check_inside(name: str) -> None:
    """Refuse a name that leads out of the folder it is looked up in, because a report shows the pictures it finds.

    Raises:
        ValueError: if it does.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name} leads out of its folder")


def _measured(row: Mapping[str, Any], name: str) -> QualityRow:
    """Convert a row of results, with MS-SSIM in decibels."""
    bpp, similarity, psnr = row["file_bpp"], row.get("file_ms_ssim"), row.get("file_psnr")
    if not _MIN_BPP <= bpp <= _MAX_BPP:
        raise ValueError(f"file_bpp of {name} is {bpp}")
    in_decibels = None if similarity is None or math.isnan(similarity) else ms_ssim_to_decibels(similarity)
    psnr, in_decibels = (value if value is not None and math.isfinite(value) else None for value in (psnr, in_decibels))
    if too_large := next((v for v in (psnr, in_decibels) if v is not None and abs(v) > _MAX_DECIBELS), None):
        raise ValueError(f"the quality of {name} is {too_large:g} dB")
    size = (row["width"], row["height"]) if "width" in row else None
    return QualityRow(name, bpp, psnr, in_decibels, size, str(row.get("pixels", "")))


def _lmbda(provenance: Mapping[str, Any]) -> str | None:
    lmbda = provenance.get("training", {}).get("loss", {}).get("lmbda")
    return None if lmbda is None else f"λ = {lmbda:g}"


def _unique(curves: Sequence[Curve]) -> list[Curve]:
    """Append a number to titles that several curves share."""
    count: dict[str, int] = {}
    result = []
    for curve in curves:
        count[curve.title] = count.get(curve.title, 0) + 1
        number = count[curve.title]
        result.append(curve if number == 1 else replace(curve, title=f"{curve.title} ({number})"))
    return result
