"""Evaluates a model on images: codes them to real files, measures each, averages, and records the provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jahp_pl.codec.bitstream import FILE_SUFFIX, MAX_SIDE
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.targets import Target
from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.classical import CODECS, encode_at_least
from jahp_pl.evaluation.image_set import Original, identify, name_in_errors
from jahp_pl.files import resolved, write_json
from jahp_pl.images.io import RGB, decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.measurement.rates import Rates, mean_rates, rates_of
from jahp_pl.measurement.roundtrip import CodingRow, code_image, mean_of, mean_of_known, mean_row
from jahp_pl.quality import compare_arrays, decibels


class ClassicalResult(NamedTuple):
    """Rate and quality of a classical codec's file that is at least as large, for comparison."""

    bpp: float
    """Bits per pixel of the whole file."""
    psnr: float
    """PSNR of 8-bit RGB, in dB."""
    ms_ssim: float | None
    """MS-SSIM of 8-bit RGB, at most 1; None if a side of the image is too short."""


class EvaluationTask(NamedTuple):
    """One image and the path of the file to write."""

    original: Original
    file: Path


class ImageResult(NamedTuple):
    """Result for one image."""

    task: EvaluationTask
    row: CodingRow
    rates: Rates
    pixels: str
    """Hash of the original's pixels, see `image_set.pixels_hash`."""
    classical: ClassicalResult | None
    """Result of the classical codec for this image; None without a comparison."""


class Evaluation(NamedTuple):
    """Results of all images and their mean."""

    images: list[ImageResult]
    mean: CodingRow
    classical_title: str | None
    """Title of the classical codec; None without a comparison."""
    classical_mean: ClassicalResult | None
    """Means over the files of the classical codec; None without a comparison."""
    provenance: dict[str, Any]
    target: Target = Target()
    """Rate or quality that was requested for every file."""


def plan_files(originals: Sequence[Original], files: Path) -> list[EvaluationTask]:
    """Assign a `.jahp` file to each image, in the same subfolder below `files` and without collisions.

    Args:
        originals: images, all different.
        files: folder for all files.

    Raises:
        EvaluationError: if files would be written among the images.
    """
    names = [Path(original.name) for original in originals]
    targets = [name.with_suffix(FILE_SUFFIX) for name in names]
    if len(set(targets)) < len(targets):  # e.g. a.jpg and a.png
        targets = [name.with_name(f"{name.name}.jahp") for name in names]
    sources = {resolved(original.source.parent) for original in originals}
    for folder in {(files / target).parent for target in targets}:
        if resolved(folder) in sources:
            raise EvaluationError(f"{folder}: files would be written among the images; choose another --output")
    return [EvaluationTask(original, files / target) for original, target in zip(originals, targets, strict=True)]


def evaluate_codec(
    codec: Codec,
    tasks: Sequence[EvaluationTask],
    compare: str | None = None,
    progress: Callable[[ImageResult], None] = lambda _: None,
    target: Target | None = None,
    effort: int = 0,
) -> Evaluation:
    """Code every image to a file, decode the file, and measure rate, quality and time.

    Nothing is coded unless all images can be read.

    Args:
        codec: codec of a trained model.
        tasks: result of `plan_files`; the `.jahp` files are kept.
        compare: key of `classical.CODECS`, to code each image with that codec too, in at least as many bytes.
        progress: called after each image.
        target: target of every file of a variable-rate model.
        effort: effort of the encoder, see `Codec.compress`.

    Raises:
        EvaluationError: if one of the codecs cannot code an image, or two images have the same name.
        ImageError: if an image cannot be read.
    """
    identities = identify([task.original for task in tasks], MAX_SIDE)
    results = []
    for task, identity in zip(tasks, identities, strict=True):
        source, name = task.original
        rgb = decode_rgb(source)
        image = torch.from_numpy(rgb).permute(2, 0, 1)
        with name_in_errors(name):
            coded = code_image(codec, image, name, task.file, target, effort)
            other = None if compare is None else _code_classical(rgb, compare, coded.row.file_bytes)
        results.append(ImageResult(task, coded.row, rates_of(coded), identity.pixels, other))
        progress(results[-1])
    others = [result.classical for result in results if result.classical is not None]
    title = CODECS[compare].title if compare is not None else None
    mean = mean_row([result.row for result in results])
    classical_mean = _mean_classical(others) if others else None
    return Evaluation(results, mean, title, classical_mean, _provenance(codec, effort), target or Target())


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Convert an evaluation to values that JSON can hold.

    MS-SSIM is also given in decibels; in the mean, these are computed from the mean MS-SSIM. Channel rates are sorted,
    largest first.
    """
    classical = evaluation.classical_mean
    mean = mean_rates([result.rates for result in evaluation.images])
    channels = {"y": mean.channels_y, "z": mean.channels_z}
    asked = {name: value for name, value in dataclasses.asdict(evaluation.target).items() if value is not None}
    return {
        **({"target": asked} if asked else {}),
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
    in_decibels = {} if row.file_ms_ssim is None else {"file_ms_ssim_db": decibels(row.file_ms_ssim)}
    values = row._asdict() | in_decibels
    return values if row.level is not None else {name: value for name, value in values.items() if name != "level"}


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write `evaluation_to_json` to a file, completely or not at all."""
    write_json(path, evaluation_to_json(evaluation))


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


def target_folders(model: str, targets: Sequence[Target]) -> list[Path]:
    """Return the folder for the files of each quality, relative to the folder for all files.

    Args:
        model: subfolder for the model's files; empty for a model that is evaluated alone.
        targets: one per quality; a single one gets no folder of its own.
    """
    return [Path(model) / f"quality-{target.quality:g}" if len(targets) > 1 else Path(model) for target in targets]


def _code_classical(rgb: RGB, codec: str, num_bytes: int) -> ClassicalResult:
    """Code an image with a classical codec in at least `num_bytes`, and measure the result."""
    file = encode_at_least(CODECS[codec], rgb, num_bytes)
    return ClassicalResult(8 * len(file.data) / (rgb.shape[0] * rgb.shape[1]), *compare_arrays(rgb, file.decode()))


def _mean_classical(rows: list[ClassicalResult]) -> ClassicalResult:
    return ClassicalResult(mean_of(rows, "bpp"), mean_of(rows, "psnr"), mean_of_known(rows, "ms_ssim"))


def _provenance(codec: Codec, effort: int) -> dict[str, Any]:
    """Collect what the results depend on: model, versions, machine, threads, device, effort."""
    return {
        "fingerprint": codec.fingerprint.hex(),
        "model": dataclasses.asdict(codec.model.config),
        **provenance(),
        "threads": torch.get_num_threads(),
        "device": str(codec.device),
        **({"effort": effort} if effort else {}),
    }
