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
from jahp_pl.evaluation.image_set import Original, add_name_to_errors, identify
from jahp_pl.files.atomic import resolved
from jahp_pl.images.io import RGB, decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.measurement.rates import Rates, rates_of
from jahp_pl.measurement.roundtrip import CodingRow, code_image, mean_of, mean_of_known, mean_row
from jahp_pl.quality import compare_arrays


class ClassicalResult(NamedTuple):
    """Rate and quality of a classical codec's file, chosen to be at least as large as the model's."""

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
        with add_name_to_errors(name):
            coded = code_image(codec, image, name, task.file, target, effort)
            other = None if compare is None else _code_classical(rgb, compare, coded.row.file_bytes)
        results.append(ImageResult(task, coded.row, rates_of(coded), identity.pixels, other))
        progress(results[-1])
    others = [result.classical for result in results if result.classical is not None]
    title = CODECS[compare].title if compare is not None else None
    mean = mean_row([result.row for result in results])
    classical_mean = _mean_classical(others) if others else None
    return Evaluation(results, mean, title, classical_mean, _provenance(codec, effort), target or Target())


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
