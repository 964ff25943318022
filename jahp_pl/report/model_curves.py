"""Joins evaluations of models into curves: points with the same title form a curve, and seeds are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean
from typing import Any

from jahp_pl.evaluation import EvaluationError
from jahp_pl.report.curves import MEASURES, Curve, CurvePoint, QualityRow
from jahp_pl.text import count_of

TITLES = {
    "factorized": "Factorized",
    "scale_hyperprior": "Scale hyperprior",
    "mean_scale_hyperprior": "Mean & scale hyperprior",
    "context": "Context only",
    "joint": "Joint",
}
FIELDS_OF_A_SEED = ("seed", "step", "source")
"""Training fields in which the models that are averaged into one point may differ."""


def title_of(provenance: Mapping[str, Any]) -> str:
    """Return the title of a model's curve: the name given with `--curve`, or a description of the model."""
    if "curve" in provenance:
        return str(provenance["curve"])
    model = provenance["model"]
    words = [TITLES.get(model["entropy_model"], model["entropy_model"])]
    if model.get("num_levels", 1) > 1:
        words.append("variable rate")
    if model["num_components"] > 1:
        words.append(f"K = {model['num_components']}")
    if model["likelihood"] != "gaussian" and model["entropy_model"] != "factorized":
        words.append(model["likelihood"])
    if provenance.get("training", {}).get("loss", {}).get("distortion", "mse") != "mse":
        words.append("for MS-SSIM")
    if effort := provenance.get("effort", 0):
        words.append(f"effort {effort}")
    return ", ".join(words)


def group_models(models: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Assign the models of one call of `jahp evaluate` to curves.

    Models with the same `--curve` name form a curve. So do models with the same description, if each has one rate and
    a lambda of its own; otherwise, each of them forms a curve whose title includes the model's name.

    Args:
        models: provenance of each model, by the model's name.

    Returns:
        Names of the models of each curve, by the curve's title, in the order of `models`.

    Raises:
        EvaluationError: if models with the same `--curve` name have the same lambda.
    """
    by_title: dict[str, list[str]] = {}
    for name, provenance in models.items():
        by_title.setdefault(title_of(provenance), []).append(name)
    curves: dict[str, list[str]] = {}
    for title, names in by_title.items():
        lmbdas = {name: _single_rate_lmbda(models[name]) for name in names}
        if all("curve" in models[name] for name in names):
            _check_lmbdas(title, lmbdas)
        elif len(names) > 1 and (None in lmbdas.values() or len(set(lmbdas.values())) < len(names)):
            curves |= {f"{title} ({name})": [name] for name in names}
            continue
        curves[title] = names
    return curves


def _single_rate_lmbda(provenance: Mapping[str, Any]) -> float | None:
    """Return the lambda that determines a model's rate; None if it is unknown, or the model has several rates."""
    if provenance["model"].get("num_levels", 1) > 1:
        return None
    lmbda: float | None = provenance.get("training", {}).get("loss", {}).get("lmbda")
    return lmbda


def _check_lmbdas(title: str, lmbdas: Mapping[str, float | None]) -> None:
    """Refuse to make two points of models with the same lambda."""
    for (first, one), (second, other) in combinations(lmbdas.items(), 2):
        if one is not None and one == other:
            raise EvaluationError(
                f"--curve {title}: {first} and {second} both have lambda {one:g}; give them different names, or "
                "evaluate them one by one if they differ only in their seed: `jahp report` averages seeds"
            )


def model_curve(title: str, points: Sequence[CurvePoint]) -> Curve:
    """Join evaluations of models with the same title into a curve; average models that differ only in their seed.

    Raises:
        EvaluationError: if the points cover different images, or models of one lambda differ in more than their seed.
    """
    first = points[0]
    for other in points[1:]:
        if first.images.keys() != other.images.keys():
            raise EvaluationError(
                f"{other.path} covers {count_of(len(other.images), 'image')}, {first.path} {len(first.images)}; a "
                "curve needs results of the same images"
            )
    source = source_of("", first.raw["provenance"])
    images = frozenset(first.images)
    by_seed: dict[int | None, list[CurvePoint]] = {}
    for point in points:
        by_seed.setdefault(_seed(point), []).append(point)
    by_quality = _by_quality_and_seed(title, points)
    if len(by_seed) == 1:
        return Curve(title, "model", sorted_by_rate(points), images, "", source)
    seeds = {
        seed: Curve(f"{title}, seed {seed}", "model", sorted_by_rate(ones), images, "", source)
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
    return Curve(title, "model", sorted_by_rate(means), images, "", source_text, seeds)


def _by_quality_and_seed(title: str, points: Sequence[CurvePoint]) -> dict[str, dict[int | None, CurvePoint]]:
    """Group the points of models with the same title by quality, then by seed.

    If two points have the same quality and seed, the second gets a quality of its own, which includes its path.

    Raises:
        EvaluationError: as for `_check_models`.
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
    """Refuse to average models that differ in more than their seed."""
    known, found = _shared_settings(first), _shared_settings(other)
    for key in sorted(known.keys() | found.keys()):
        if known.get(key) != found.get(key):
            raise EvaluationError(
                f"{other.path} and {first.path} have different models for the same point of {title}, {first.quality} "
                f"({key}: {found.get(key)}, {known.get(key)}); evaluate one with --curve NAME, or report them apart"
            )


def _shared_settings(point: CurvePoint) -> dict[str, Any]:
    """Collect the settings that two models must share: `model.num_filters`, `optim.learning_rate`, ..."""
    provenance = point.raw["provenance"]
    training = {key: value for key, value in provenance.get("training", {}).items() if key not in FIELDS_OF_A_SEED}
    groups = {"model": provenance.get("model", {})} | training
    return {
        f"{group}.{key}": value
        for group, settings in groups.items()
        for key, value in (settings.items() if isinstance(settings, Mapping) else [("", settings)])
    }


def _mean_point(points: Sequence[CurvePoint]) -> CurvePoint:
    """Average the points of models that differ only in their seed; all but the numbers comes from the first point."""
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


def sorted_by_rate(points: Iterable[CurvePoint]) -> tuple[CurvePoint, ...]:
    """Sort points by rate, lowest first."""
    return tuple(sorted(points, key=lambda point: point.mean.bpp))


def entropy_model_order(curve: Curve) -> int:
    """Return a sort key that puts models' curves in the paper's order of entropy models."""
    name = curve.points[0].raw["provenance"]["model"]["entropy_model"]
    return list(TITLES).index(name) if name in TITLES else len(TITLES)


def source_of(settings: str, provenance: Mapping[str, Any]) -> str:
    """Describe how points were measured: settings, processor, threads and date."""
    machine = provenance.get("machine", {})
    threads = provenance.get("threads", 1)
    is_known = isinstance(machine, Mapping) and isinstance(machine.get("cpu"), str)  # early versions stored a string
    cpu = f"{machine['cpu']}, {count_of(threads, 'thread')}" if is_known else ""
    return "; ".join(part for part in (settings, cpu, provenance.get("date", "")) if part)
