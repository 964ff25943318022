"""Writes the results of models to JSON files, and reads which models a file has results of.

A single evaluation is an object of its own; several form curves in the format of `jahp classical`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.evaluate import Evaluation
from jahp_pl.files import json_content
from jahp_pl.files.atomic import write_json
from jahp_pl.measurement.rates import mean_rates
from jahp_pl.measurement.roundtrip import CodingRow
from jahp_pl.quality import ms_ssim_to_decibels


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Convert an evaluation to values that JSON can hold.

    MS-SSIM is also given in decibels; in the mean, these are computed from the mean MS-SSIM. Channel rates are sorted,
    largest first.
    """
    classical = evaluation.classical_mean
    mean = mean_rates([result.rates for result in evaluation.images])
    channels = {"y": mean.channels_y, "z": mean.channels_z}
    requested = {name: value for name, value in dataclasses.asdict(evaluation.target).items() if value is not None}
    return {
        **({"target": requested} if requested else {}),
        "mean": _row_to_json(evaluation.mean) | {"rate": mean.split._asdict()},
        "bpp_per_channel": {k: [round(x, 7) for x in v.sort(descending=True)[0].tolist()] for k, v in channels.items()},
        # The keys `beside_mean` and `beside` keep the former name of --compare, because programs read them.
        "beside_mean": None if classical is None else {"codec": evaluation.classical_title, **classical._asdict()},
        "provenance": evaluation.provenance,
        "images": [
            _row_to_json(result.row)
            | {"pixels": result.pixels}
            | {"rate": result.rates.split._asdict()}
            | {"beside": None if result.classical is None else result.classical._asdict()}
            for result in evaluation.images
        ],
    }


def _row_to_json(row: CodingRow) -> dict[str, Any]:
    """Convert a row to plain values; add MS-SSIM in decibels, and leave out the level of a single-rate model."""
    in_decibels = {} if row.file_ms_ssim is None else {"file_ms_ssim_db": ms_ssim_to_decibels(row.file_ms_ssim)}
    values = row._asdict() | in_decibels
    return values if row.level is not None else {name: value for name, value in values.items() if name != "level"}


class ModelPoint(NamedTuple):
    """One model at one quality."""

    folder: Path
    """Folder of the files, relative to the folder for all files; see `target_folders`."""
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Convert the point to the JSON format of `jahp classical`."""
        quality = self.evaluation.target.quality
        named = {} if quality is None else {"quality": f"quality {quality:g}"}
        return named | {"folder": self.folder.as_posix()} | evaluation_to_json(self.evaluation)


class ModelCurve(NamedTuple):
    """One model at several qualities, or several models with different rates."""

    title: str
    points: Sequence[ModelPoint]
    """At least one, in the order of the models and, for each model, of the qualities."""

    def to_json(self) -> dict[str, Any]:
        """Convert the curve to the JSON format of `jahp classical`."""
        points = [point.to_json() for point in self.points]
        return {"name": "model", "title": self.title, "kind": "model", "points": points}


def save_results(
    evaluations: Mapping[str, Sequence[Evaluation]],
    folders: Mapping[str, Sequence[Path]],
    curves: Mapping[str, Sequence[str]],
    path: Path,
) -> None:
    """Write results to a file, completely or not at all: as curves, or a single evaluation without a curve.

    Args:
        evaluations: evaluations of each model, by model name.
        folders: folder of the files of each evaluation, by model name; see `ModelPoint.folder`.
        curves: names of the models of each curve, by title.
        path: path of the file.
    """
    (first, *others), *more = evaluations.values()
    if not others and not more:
        write_json(path, evaluation_to_json(first))
        return
    points = {
        name: [ModelPoint(*pair) for pair in zip(folders[name], evaluations[name], strict=True)] for name in folders
    }
    save_curves(
        [ModelCurve(title, [p for name in names for p in points[name]]) for title, names in curves.items()], path
    )


def save_curves(curves: Sequence[ModelCurve], path: Path) -> None:
    """Write curves to one file, completely or not at all.

    The file's own provenance has the facts that all points share.

    Args:
        curves: at least one curve.
        path: path of the file.
    """
    first, *others = [point.evaluation.provenance for curve in curves for point in curve.points]
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    content = {"curves": [curve.to_json() for curve in curves], "provenance": common}
    write_json(path, content)


def read_fingerprints(path: Path) -> set[str] | None:
    """Read the fingerprints of the models whose results a file holds; None if there is no such file.

    Raises:
        EvaluationError: if the file holds something else, e.g. curves of `jahp classical`.
    """
    if not path.exists():
        return None
    try:
        content = json_content.read(path)
        results = (
            [point for curve in content["curves"] for point in curve["points"]] if "curves" in content else [content]
        )
        found = {str(result["provenance"]["fingerprint"]) for result in results}
    except (ValueError, LookupError, TypeError):
        found = set()
    if not found:
        raise EvaluationError(f"{path}: has no results of `jahp evaluate`; move it away, or choose another --output")
    return found
