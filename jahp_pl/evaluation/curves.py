"""Rate-distortion curves from result files: evaluations of models, one point each, and files of whole curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from jahp_pl.evaluation import EvaluationError

Metric = Literal["psnr", "ms_ssim"]
METRICS: dict[Metric, str] = {"psnr": "PSNR", "ms_ssim": "MS-SSIM"}
"""How a file's pictures are judged, both in dB here, and how to call it."""
KODAK = tuple(f"kodim{number:02}" for number in range(1, 25))
"""Published curves name their images so."""
RUNGS = {
    "factorized": "Factorized",
    "scale_hyperprior": "Scale hyperprior",
    "mean_scale_hyperprior": "Mean & scale hyperprior",
    "context": "Context only",
    "joint": "Joint",
}
Kind = Literal["model", "classical", "published"]


class Measured(NamedTuple):
    """One image, or the mean over all."""

    name: str
    bpp: float
    psnr: float | None
    """dB; None where it was not published or is infinite."""
    ms_ssim: float | None
    """dB."""


@dataclass(frozen=True)
class Point:
    """One setting of one codec on all images."""

    quality: str
    """Its lambda, quality or QP, in words."""
    mean: Measured
    images: Mapping[str, Measured] = field(default_factory=dict)
    """By the name of the image without suffix; empty for published points."""
    seconds: tuple[float, float] | None = None
    """Median time to encode and to decode an image."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """What the file holds about this point: rate split, channels, provenance."""
    path: Path | None = None
    """The file it is from."""


@dataclass(frozen=True)
class Curve:
    """One codec over its rates."""

    title: str
    """How figures and tables call it; unique in one report."""
    kind: Kind
    points: tuple[Point, ...]
    """By rising rate."""
    images: frozenset[str]
    """Names without suffix of the images it is the mean of."""
    key: str = ""
    """Of a classical codec, its name in `classical.CODECS`."""
    source: str = ""
    """Where published points are from, or what coded the images on which machine."""
    seeds: Mapping[int, Curve] = field(default_factory=dict)
    """Of models trained several times, one curve for each seed; this one is their mean."""

    def values(self, metric: Metric, image: str | None = None) -> list[tuple[float, float]]:
        """(bits per pixel, dB) by rising rate, of the mean or of one image; points without this metric left out."""
        rows = [point.mean if image is None else point.images.get(image) for point in self.points]
        pairs = [(row.bpp, getattr(row, metric)) for row in rows if row is not None]
        return sorted((bpp, value) for bpp, value in pairs if value is not None)


def read_curves(paths: Iterable[Path]) -> list[Curve]:
    """Curves of result files; folders stand for all results directly in them.

    Evaluations of models of one architecture, or of one `--curve` name, become the points of one curve; those of one
    lambda and several seeds a point that is their mean.

    Raises:
        EvaluationError: a missing or foreign file, or files about different images.
    """
    curves: list[Curve] = []
    evaluations: dict[str, list[Point]] = {}
    for path in _files(paths):
        content = _read(path)
        if "curves" in content:
            curves += [_curve(entry, path) for entry in content["curves"]]
        else:
            point = _point(content, path)
            evaluations.setdefault(_title(content["provenance"]), []).append(point)
    models = [_of_models(title, points) for title, points in evaluations.items()]
    curves = sorted(models, key=_rung) + curves
    if not curves:
        raise EvaluationError("no results; give files that `jahp evaluate` or `jahp classical` wrote")
    check_images(curves)
    return _unique(curves)


def check_images(curves: Sequence[Curve]) -> None:
    """Refuse curves that are means over different images.

    Raises:
        EvaluationError: naming two curves and the first image that only one has.
    """
    first = curves[0]
    for other in curves[1:]:
        if difference := sorted(first.images ^ other.images):
            raise EvaluationError(
                f"{other.title} covers {len(other.images)} images, {first.title} {len(first.images)} (first "
                f"difference: {difference[0]}); a comparison needs results of the same images"
            )


def find_curve(curves: Sequence[Curve], name: str) -> Curve:
    """The curve of this title or codec name; else the only one whose title contains it, in any case.

    Raises:
        EvaluationError: none or several.
    """
    exact = [curve for curve in curves if name in (curve.title, curve.key)]
    found = exact or [curve for curve in curves if name.lower() in curve.title.lower()]
    if len(found) != 1:
        which = "none of the curves" if not found else "several curves"
        known = ", ".join(repr(curve.title) for curve in found or curves)
        raise EvaluationError(f"anchor {name!r}: {which} is called so; choose among {known}")
    return found[0]


def _files(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise EvaluationError(f"{path}: holds no results (*.json)")
        found += inside
    return list(dict.fromkeys(found))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file of results")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON ({error})") from None
    is_evaluation = isinstance(content, dict) and {"mean", "images", "provenance"} <= set(content)
    if not is_evaluation and not (isinstance(content, dict) and isinstance(content.get("curves"), list)):
        raise EvaluationError(f"{path}: neither of `jahp evaluate` nor of `jahp classical`")
    result: dict[str, Any] = content
    return result


def _curve(entry: Mapping[str, Any], path: Path) -> Curve:
    try:
        points = tuple(_point(point, path) for point in entry["points"])
        names = KODAK if entry.get("images") == "kodak" else [name for point in points for name in point.images]
        title, kind, key = entry["title"], entry["kind"], entry["name"]
    except KeyError as error:
        raise EvaluationError(f"{path}: a curve without {error}") from None
    source = entry.get("source") or _source(entry.get("settings", ""), entry.get("provenance", {}))
    return Curve(title, kind, _sorted(points), frozenset(names), key if kind == "classical" else "", source)


def _point(content: Mapping[str, Any], path: Path) -> Point:
    try:
        rows = {Path(row["name"]).with_suffix("").as_posix(): row for row in content.get("images", ())}
        images = {name: _measured(row, name) for name, row in rows.items()}
        mean = _measured(content["mean"], "mean")
    except KeyError as error:
        raise EvaluationError(f"{path}: a result without {error}") from None
    times = [
        [row[f"{way}_seconds"] for row in rows.values() if f"{way}_seconds" in row] for way in ("encode", "decode")
    ]
    seconds = (_median(times[0]), _median(times[1])) if all(times) else None
    quality = content["quality"] if "quality" in content else _lmbda(content["provenance"])
    raw = {key: value for key, value in content.items() if key != "images"}
    return Point("" if quality is None else str(quality), mean, images, seconds, raw, path)


def _measured(row: Mapping[str, Any], name: str) -> Measured:
    similarity = row.get("file_ms_ssim")
    in_decibels = None if similarity is None or similarity >= 1 else -10 * math.log10(1 - similarity)
    psnr = row.get("file_psnr")
    return Measured(name, row["file_bpp"], psnr if psnr is not None and math.isfinite(psnr) else None, in_decibels)


def _median(values: Sequence[float]) -> float:
    # Not the mean: one image during which the machine did something else would decide.
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _sorted(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: point.mean.bpp))


def _of_models(title: str, points: Sequence[Point]) -> Curve:
    first = points[0]
    for other in points[1:]:
        if first.images.keys() != other.images.keys():
            raise EvaluationError(
                f"{other.path} covers {len(other.images)} images, {first.path} {len(first.images)}; a curve needs "
                "results of the same images"
            )
    source = _source("", first.raw["provenance"])
    images = frozenset(first.images)
    by_seed: dict[int | None, list[Point]] = {}
    by_quality: dict[str, dict[int | None, Point]] = {}
    for point in points:
        seed = point.raw["provenance"].get("training", {}).get("seed")
        by_seed.setdefault(seed, []).append(point)
        if by_quality.setdefault(point.quality, {}).setdefault(seed, point) is not point:  # the same trained twice
            by_quality[f"{point.quality} ({point.path})"] = {seed: point}
    if len(by_seed) == 1:
        return Curve(title, "model", _sorted(points), images, "", source)
    seeds = {
        seed: Curve(f"{title}, seed {seed}", "model", _sorted(ones), images, "", source)
        for seed, ones in by_seed.items()
        if seed is not None
    }
    means = [_mean_point(list(ones.values())) for ones in by_quality.values()]
    return Curve(title, "model", _sorted(means), images, "", f"mean of seeds {_words(seeds)}; {source}", seeds)


def _mean_point(points: Sequence[Point]) -> Point:
    """Of models that differ in their seed. What is not a figure, pictures for example, is that of the first."""
    first = points[0]
    if len(points) == 1:
        return first
    images = {name: _mean_measured([point.images[name] for point in points]) for name in first.images}
    return replace(first, mean=_mean_measured([point.mean for point in points]), images=images)


def _mean_measured(rows: Sequence[Measured]) -> Measured:
    psnr, ms_ssim = ([getattr(row, name) for row in rows] for name in METRICS)
    return Measured(
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
    return list(RUNGS).index(rung) if rung in RUNGS else len(RUNGS)


def _source(settings: str, provenance: Mapping[str, Any]) -> str:
    machine = provenance.get("machine", {})
    threads = provenance.get("threads", 1)
    cpu = f"{machine['cpu']}, {threads} thread{'s' * (threads > 1)}" if "cpu" in machine else ""
    return "; ".join(part for part in (settings, cpu, provenance.get("date", "")) if part)


def _title(provenance: Mapping[str, Any]) -> str:
    if "curve" in provenance:
        return str(provenance["curve"])
    model = provenance["model"]
    words = [RUNGS.get(model["rung"], model["rung"])]
    if model["num_components"] > 1:
        words.append(f"K = {model['num_components']}")
    if model["likelihood"] != "gaussian" and model["rung"] != "factorized":
        words.append(model["likelihood"])
    if provenance.get("training", {}).get("loss", {}).get("distortion", "mse") != "mse":
        words.append("for MS-SSIM")
    return ", ".join(words)


def _lmbda(provenance: Mapping[str, Any]) -> str | None:
    lmbda = provenance.get("training", {}).get("loss", {}).get("lmbda")
    return None if lmbda is None else f"λ = {lmbda:g}"


def _unique(curves: Sequence[Curve]) -> list[Curve]:
    count: dict[str, int] = {}
    result = []
    for curve in curves:
        count[curve.title] = count.get(curve.title, 0) + 1
        number = count[curve.title]
        result.append(curve if number == 1 else replace(curve, title=f"{curve.title} ({number})"))
    return result
