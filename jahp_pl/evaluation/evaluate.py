"""Evaluates a model on a folder of images: real files, measured per image and on average, with full provenance."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jahp_pl.codec.bitstream import MAX_SIDE
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.targets import Target
from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.classical import CODECS, encode_at_least
from jahp_pl.evaluation.image_set import Original, identify, name_in_errors
from jahp_pl.files import resolved, write_atomically
from jahp_pl.images.io import RGB, decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.measurement.rates import Rates, mean_rates, rates_of
from jahp_pl.measurement.roundtrip import CodingRow, code_image, mean_of, mean_of_known, mean_row
from jahp_pl.quality import compare_arrays, decibels


class ClassicalResult(NamedTuple):
    """Rate and quality of a classical codec's file of at least the same size, for comparison."""

    bpp: float
    """Bits per pixel of the whole file."""
    psnr: float
    """dB, RGB, 8 bits."""
    ms_ssim: float | None
    """From 0 to 1; None if a side is too short."""


class EvaluationTask(NamedTuple):
    """One image and the path of its file."""

    original: Original
    file: Path


class ImageResult(NamedTuple):
    """Result for one image."""

    task: EvaluationTask
    row: CodingRow
    rates: Rates
    pixels: str
    """Hash of the original, see `image_set.pixels_hash`."""
    beside: ClassicalResult | None
    """The classical codec's file of this image; None without a comparison."""


class Evaluation(NamedTuple):
    """Results of all images and their mean."""

    images: list[ImageResult]
    mean: CodingRow
    beside_title: str | None
    """Title of the classical codec; None without a comparison."""
    beside_mean: ClassicalResult | None
    """Means over the files of the classical codec."""
    provenance: dict[str, Any]
    target: Target = Target()
    """Target of every file."""


def plan_files(originals: Sequence[Original], files: Path) -> list[EvaluationTask]:
    """Assign a `.jahp` file to each image: below `files` in the same tree, without collisions.

    Args:
        originals: all different.
        files: folder of all files.

    Raises:
        EvaluationError: if files would be written among the images.
    """
    names = [Path(original.name) for original in originals]
    targets = [name.with_suffix(".jahp") for name in names]
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
    beside: str | None = None,
    progress: Callable[[ImageResult], None] = lambda _: None,
    target: Target | None = None,
    effort: int = 0,
) -> Evaluation:
    """Code every image to a file, decode it from there, and measure, once all images are known to be readable.

    Args:
        codec: codec of a trained model.
        tasks: result of `plan_files`; the `.jahp` files are kept.
        beside: key of `classical.CODECS`; codes each image also with that codec, in at least as many bytes.
        progress: called after each image.
        target: target of every file of a variable-rate model.
        effort: effort of the encoder, see `Codec.compress`; recorded in the provenance.

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
            other = None if beside is None else _code_classical(rgb, beside, coded.row.file_bytes)
        results.append(ImageResult(task, coded.row, rates_of(coded), identity.pixels, other))
        progress(results[-1])
    others = [result.beside for result in results if result.beside is not None]
    title = CODECS[beside].title if beside is not None else None
    mean = mean_row([result.row for result in results])
    beside_mean = _mean_classical(others) if others else None
    return Evaluation(results, mean, title, beside_mean, _provenance(codec, effort), target or Target())


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Convert to plain values.

    MS-SSIM is also given in decibels, for the mean computed from the mean MS-SSIM; channel rates are sorted, largest
    first.
    """
    beside = evaluation.beside_mean
    mean = mean_rates([result.rates for result in evaluation.images])
    channels = {"y": mean.channels_y, "z": mean.channels_z}
    asked = {name: value for name, value in dataclasses.asdict(evaluation.target).items() if value is not None}
    return {
        **({"target": asked} if asked else {}),
        "mean": _row_to_json(evaluation.mean) | {"rate": mean.split._asdict()},
        "bpp_per_channel": {k: [round(x, 7) for x in v.sort(descending=True)[0].tolist()] for k, v in channels.items()},
        "beside_mean": None if beside is None else {"codec": evaluation.beside_title, **beside._asdict()},
        "provenance": evaluation.provenance,
        "images": [
            _row_to_json(result.row)
            | {"pixels": result.pixels}
            | {"rate": result.rates.split._asdict()}
            | {"beside": None if result.beside is None else result.beside._asdict()}
            for result in evaluation.images
        ],
    }


def _row_to_json(row: CodingRow) -> dict[str, Any]:
    """Convert a row to plain values, with MS-SSIM in decibels too, without the level of a single-rate model."""
    in_decibels = {} if row.file_ms_ssim is None else {"file_ms_ssim_db": decibels(row.file_ms_ssim)}
    values = row._asdict() | in_decibels
    return values if row.level is not None else {name: value for name, value in values.items() if name != "level"}


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write `evaluation_to_json` to a file, completely or not at all."""
    write_atomically(path, (json.dumps(evaluation_to_json(evaluation), indent=1) + "\n").encode())


class ModelCurve(NamedTuple):
    """One model at one or several qualities."""

    title: str
    folder: str
    """Folder of its files below that of all files; empty for a model that is evaluated alone."""
    evaluations: Sequence[Evaluation]
    """One per quality, in the order of the curve's points."""

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, as in files of `jahp classical`."""
        points = []
        targets = [evaluation.target for evaluation in self.evaluations]
        for evaluation, target, folder in zip(
            self.evaluations, targets, target_folders(self.folder, targets), strict=True
        ):
            quality = {} if target.quality is None else {"quality": f"quality {target.quality:g}"}
            points.append(quality | {"folder": folder.as_posix()} | evaluation_to_json(evaluation))
        return {"name": "model", "title": self.title, "kind": "model", "points": points}


def save_curves(curves: Sequence[ModelCurve], path: Path) -> None:
    """Write curves to one file, completely or not at all; its provenance is what all of them have in common.

    Args:
        curves: at least one.
        path: path of the file.
    """
    first, *others = [curve.evaluations[0].provenance for curve in curves]
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    content = {"curves": [curve.to_json() for curve in curves], "provenance": common}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def target_folders(model: str, targets: Sequence[Target]) -> list[Path]:
    """Return the folder of each quality's files, relative to that of all files.

    Args:
        model: folder of the model's files below that of all files; empty for a model that is evaluated alone.
        targets: one per quality; a single one gets no folder of its own.
    """
    return [Path(model) / f"quality-{target.quality:g}" if len(targets) > 1 else Path(model) for target in targets]


def _code_classical(rgb: RGB, codec: str, num_bytes: int) -> ClassicalResult:
    """Code an image with a classical codec in at least as many bytes, and measure."""
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
