"""Reads result files as curves: evaluations of models, one point each, and files with whole curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.image_set import may_be_same_image
from jahp_pl.images.kodak import KODAK_NAMES
from jahp_pl.quality import decibels
from jahp_pl.report.curves import MEASURES, Curve, CurveKind, CurvePoint, QualityRow
from jahp_pl.text import count_of

RUNG_TITLES = {
    "factorized": "Factorized",
    "scale_hyperprior": "Scale hyperprior",
    "mean_scale_hyperprior": "Mean & scale hyperprior",
    "context": "Context only",
    "joint": "Joint",
}
SEED_FACTS = ("seed", "step", "source")
"""Training facts that may differ between models that are one point of a curve."""


def read_curves(paths: Iterable[Path]) -> list[Curve]:
    """Read curves from result files; a folder means all results directly in it.

    Evaluations of models with the same architecture, or the same `--curve` name, become points of one curve. Those with
    the same lambda and several seeds become one point, their mean.

    Raises:
        EvaluationError: if a file is missing, damaged or not a result, files are about different images, or models of
            one lambda differ in more than their seed.
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
    models = [_model_curve(title, points) for title, points in evaluations.items()]
    models += [curve for curve in curves if curve.kind == "model"]
    curves = sorted(models, key=_rung) + [curve for curve in curves if curve.kind != "model"]
    if not curves:
        raise EvaluationError("no results; give files that `jahp evaluate` or `jahp classical` wrote")
    check_same_images(curves)
    return _unique(curves)


def check_same_images(curves: Sequence[Curve]) -> None:
    """Refuse curves that are means over different images.

    Raises:
        EvaluationError: if images differ; it names two curves and the first image that is missing or different in one.
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
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise EvaluationError(f"{path}: has no results (*.json); give files that `jahp evaluate` wrote")
        found += inside
    return list(dict.fromkeys(found))


def _read(path: Path) -> dict[str, Any]:
    """Read a results file of either kind."""
    if not path.is_file():
        raise EvaluationError(f"{path}: no such results file; check the path")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise EvaluationError(f"{path}: is not JSON ({error}); make it again") from None
    is_evaluation = isinstance(content, dict) and {"mean", "images", "provenance"} <= set(content)
    if not is_evaluation and not (isinstance(content, dict) and isinstance(content.get("curves"), list)):
        raise EvaluationError(f"{path}: was written neither by `jahp evaluate` nor by `jahp classical`; leave it out")
    result: dict[str, Any] = content
    return result


def _curve(entry: Mapping[str, Any], path: Path) -> Curve:
    """Convert an entry of a file with curves."""
    points = tuple(_point(point, path) for point in entry["points"])
    title, kind, key = str(entry["title"]), entry["kind"], entry["name"]
    if kind not in get_args(CurveKind):
        raise ValueError(f"kind {kind!r} of {title}")
    if not points:
        raise ValueError(f"{title} has no points")
    covered = {frozenset(point.images) for point in points}
    if len(covered) > 1:
        raise EvaluationError(f"{path}: the points of {title} cover different images; code them again")
    names = KODAK_NAMES if entry.get("images") == "kodak" else covered.pop()
    source = entry.get("source") or _source(entry.get("settings", ""), entry.get("provenance", {}))
    return Curve(title, kind, _sorted(points), names, key if kind == "classical" else "", source)


def _point(content: Mapping[str, Any], path: Path) -> CurvePoint:
    """Convert an evaluation, or one entry of a curve, to a point."""
    rows = {}
    for row in content.get("images", ()):
        name = Path(row["name"]).with_suffix("").as_posix()
        if name in rows:
            raise EvaluationError(f"{path}: two images are called {name}; rename one of them and code them again")
        rows[name] = row
    images = {name: _measured(row, name) for name, row in rows.items()}
    mean = _measured(content["mean"], "mean")
    times = [
        [row[f"{way}_seconds"] for row in rows.values() if f"{way}_seconds" in row] for way in ("encode", "decode")
    ]
    seconds = (_median(times[0]), _median(times[1])) if all(times) else None
    quality = content["quality"] if "quality" in content else _lmbda(content["provenance"])
    raw = {key: value for key, value in content.items() if key != "images"}
    return CurvePoint("" if quality is None else str(quality), mean, images, seconds, raw, path)


def _measured(row: Mapping[str, Any], name: str) -> QualityRow:
    """Convert a row of results, with MS-SSIM in decibels."""
    bpp, similarity, psnr = row["file_bpp"], row.get("file_ms_ssim"), row.get("file_psnr")
    if not 0 < bpp < math.inf:
        raise ValueError(f"file_bpp of {name} is {bpp}")
    in_decibels = None if similarity is None or similarity >= 1 else decibels(similarity)
    size = (row["width"], row["height"]) if "width" in row else None
    in_range = psnr if psnr is not None and math.isfinite(psnr) else None
    return QualityRow(name, bpp, in_range, in_decibels, size, str(row.get("pixels", "")))


def _median(values: Sequence[float]) -> float:
    # Not the mean, which a single image during which the machine was busy would dominate.
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _sorted(points: Iterable[CurvePoint]) -> tuple[CurvePoint, ...]:
    return tuple(sorted(points, key=lambda point: point.mean.bpp))


def _model_curve(title: str, points: Sequence[CurvePoint]) -> Curve:
    """Join evaluations of models with one title to a curve; those that differ in their seed become one point."""
    first = points[0]
    for other in points[1:]:
        if first.images.keys() != other.images.keys():
            raise EvaluationError(
                f"{other.path} covers {count_of(len(other.images), 'image')}, {first.path} {len(first.images)}; a "
                "curve needs results of the same images"
            )
    source = _source("", first.raw["provenance"])
    images = frozenset(first.images)
    by_seed: dict[int | None, list[CurvePoint]] = {}
    for point in points:
        by_seed.setdefault(_seed(point), []).append(point)
    by_quality = _by_quality_and_seed(title, points)
    if len(by_seed) == 1:
        return Curve(title, "model", _sorted(points), images, "", source)
    seeds = {
        seed: Curve(f"{title}, seed {seed}", "model", _sorted(ones), images, "", source)
        for seed, ones in by_seed.items()
        if seed is not None
    }
    means = [_mean_point(list(ones.values())) for ones in by_quality.values()]
    fewer = [
        f"{quality} is of seed {_words(seed for seed in ones if seed is not None)} alone"
        for quality, ones in by_quality.items()
        if len(ones) < len(by_seed)
    ]
    source_text = "; ".join((f"mean of seeds {_words(seeds)}", *fewer, source))
    return Curve(title, "model", _sorted(means), images, "", source_text, seeds)


def _by_quality_and_seed(title: str, points: Sequence[CurvePoint]) -> dict[str, dict[int | None, CurvePoint]]:
    """Group the points of models with one title by quality, then by seed.

    If a quality has two points of one seed, the second gets a quality of its own, which includes its path.

    Raises:
        EvaluationError: see `_check_models`.
    """
    groups: dict[str, dict[int | None, CurvePoint]] = {}
    for point in points:
        ones = groups.setdefault(point.quality, {})
        if ones and point.quality:
            _check_models(title, next(iter(ones.values())), point)
        if ones.setdefault(_seed(point), point) is not point:
            groups[f"{point.quality} ({point.path})"] = {_seed(point): point}
    return groups


def _seed(point: CurvePoint) -> int | None:
    seed: int | None = point.raw["provenance"].get("training", {}).get("seed")
    return seed


def _check_models(title: str, first: CurvePoint, other: CurvePoint) -> None:
    """Refuse to treat models as seeds of one model if they differ in more than their seed."""
    known, found = _facts(first), _facts(other)
    for key in sorted(known.keys() | found.keys()):
        if known.get(key) != found.get(key):
            raise EvaluationError(
                f"{other.path} and {first.path} are different models at one point of {title}, {first.quality} ({key}: "
                f"{found.get(key)}, {known.get(key)}); evaluate one with --curve NAME, or report them apart"
            )


def _facts(point: CurvePoint) -> dict[str, Any]:
    """Collect the settings that two models must share: `model.num_filters`, `optim.learning_rate`, ..."""
    provenance = point.raw["provenance"]
    training = {key: value for key, value in provenance.get("training", {}).items() if key not in SEED_FACTS}
    groups = {"model": provenance.get("model", {})} | training
    return {
        f"{group}.{key}": value
        for group, settings in groups.items()
        for key, value in (settings.items() if isinstance(settings, Mapping) else [("", settings)])
    }


def _mean_point(points: Sequence[CurvePoint]) -> CurvePoint:
    """Average the points of models that differ in their seed; everything but figures is taken from the first."""
    first = points[0]
    if len(points) == 1:
        return first
    images = {name: _mean_measured([point.images[name] for point in points]) for name in first.images}
    return replace(first, mean=_mean_measured([point.mean for point in points]), images=images)


def _mean_measured(rows: Sequence[QualityRow]) -> QualityRow:
    psnr, ms_ssim = ([getattr(row, name) for row in rows] for name in MEASURES)
    return QualityRow(
        rows[0].name,
        fmean(row.bpp for row in rows),
        None if None in psnr else fmean(psnr),
        None if None in ms_ssim else fmean(ms_ssim),
    )


def _words(numbers: Iterable[int]) -> str:
    *others, last = map(str, sorted(numbers))
    return f"{', '.join(others)} and {last}" if others else last


def _rung(curve: Curve) -> int:
    rung = curve.points[0].raw["provenance"]["model"]["rung"]
    return list(RUNG_TITLES).index(rung) if rung in RUNG_TITLES else len(RUNG_TITLES)


def _source(settings: str, provenance: Mapping[str, Any]) -> str:
    """Describe settings, processor, threads and date of measured points."""
    machine = provenance.get("machine", {})
    threads = provenance.get("threads", 1)
    cpu = f"{machine['cpu']}, {count_of(threads, 'thread')}" if "cpu" in machine else ""
    return "; ".join(part for part in (settings, cpu, provenance.get("date", "")) if part)


def title_of(provenance: Mapping[str, Any]) -> str:
    """Return the title of a model's curve: its `--curve`, or rung, components, density and distortion in words."""
    if "curve" in provenance:
        return str(provenance["curve"])
    model = provenance["model"]
    words = [RUNG_TITLES.get(model["rung"], model["rung"])]
    if model.get("num_levels", 1) > 1:
        words.append("variable rate")
    if model["num_components"] > 1:
        words.append(f"K = {model['num_components']}")
    if model["likelihood"] != "gaussian" and model["rung"] != "factorized":
        words.append(model["likelihood"])
    if provenance.get("training", {}).get("loss", {}).get("distortion", "mse") != "mse":
        words.append("for MS-SSIM")
    if effort := provenance.get("effort", 0):
        words.append(f"effort {effort}")
    return ", ".join(words)


def _lmbda(provenance: Mapping[str, Any]) -> str | None:
    lmbda = provenance.get("training", {}).get("loss", {}).get("lmbda")
    return None if lmbda is None else f"λ = {lmbda:g}"


def _unique(curves: Sequence[Curve]) -> list[Curve]:
    """Number the titles that several curves have."""
    count: dict[str, int] = {}
    result = []
    for curve in curves:
        count[curve.title] = count.get(curve.title, 0) + 1
        number = count[curve.title]
        result.append(curve if number == 1 else replace(curve, title=f"{curve.title} ({number})"))
    return result
