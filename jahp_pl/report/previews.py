"""Makes pictures for a report: originals and each codec's reconstructions at equal rate, small enough for one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jahp_pl.codec.bitstream import DECODED_SUFFIX
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.targets import Target
from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.classical import CODECS, encode_nearest
from jahp_pl.evaluation.image_set import add_name_to_errors
from jahp_pl.images.io import RGB, SUFFIXES, decode_rgb
from jahp_pl.quality import compare_arrays, ms_ssim_to_decibels
from jahp_pl.report.curves import Curve, CurvePoint

MAX_PICTURE_BYTES = 4_000_000
"""Maximum bytes of all pictures of a page, before base64 adds a third."""
_QUALITIES = (96, 93, 90, 85, 80, 70, 60)


class Preview(NamedTuple):
    """One codec's reconstruction of an image."""

    curve: int
    """Index of the curve."""
    bpp: float
    """Bits per pixel of the whole file."""
    psnr: float
    """PSNR in dB; infinite if the reconstruction equals the original."""
    ms_ssim: float | None
    """MS-SSIM in dB; None if a side of the image is too short."""
    pixels: RGB
    """(H, W, 3) uint8."""


class Comparison(NamedTuple):
    """One image, reconstructed by every codec at about the same rate."""

    name: str
    why: str
    """Reason why this image was chosen."""
    bpp: float
    """Rate that all codecs approximate, in bits per pixel."""
    original: RGB
    """(H, W, 3) uint8."""
    items: list[Preview]
    """Reconstructions in the order of the curves; curves without a picture are left out."""


def choose_images(curves: Sequence[Curve], names: Sequence[str]) -> dict[str, str]:
    """Choose the images to show.

    These are the requested ones, otherwise the images with the highest and the median rate at the middle point of the
    first measured curve.

    Returns:
        The reason for each image, by name.

    Raises:
        EvaluationError: if a requested image is not in the results.
    """
    if missing := sorted(set(names) - curves[0].images):
        there = ", ".join(sorted(curves[0].images))
        raise EvaluationError(f"{missing[0]}: no such image in the results; choose among {there}")
    if names:
        return dict.fromkeys(names, "chosen by hand")
    point = next((c.points[len(c.points) // 2] for c in curves if c.points and c.points[0].images), None)
    if point is None:
        return {}
    by_rate = sorted(point.images, key=lambda name: point.images[name].bpp)
    middle, last = by_rate[(len(by_rate) - 1) // 2], by_rate[-1]
    return {last: f"the one of {len(by_rate)} images with the most bits"} | {middle: "with the median number of bits"}


def make_comparisons(
    curves: Sequence[Curve],
    originals: Path | Sequence[Path],
    images: Mapping[str, str],
    bpp: float,
    codecs: Mapping[str, Codec],
    progress: Callable[[str], object] = lambda _: None,
) -> list[Comparison]:
    """Make a picture of each image for every codec that can code it or has coded it.

    All pictures of an image have about the same rate: the one at which the last model codes it, at the model's point
    nearest to `bpp`.

    A model's picture is made by the codec with its fingerprint, or taken from the PNG that `jahp decompress` wrote next
    to its results. Classical codecs code the image again.

    Args:
        curves: curves of the report.
        originals: the original images, or folders of them.
        images: result of `choose_images`.
        bpp: requested mean rate, in bits per pixel.
        codecs: codecs by fingerprint.
        progress: called before each picture with the names of its image and curve.

    Raises:
        EvaluationError: if an original is missing, or a codec cannot code it.
    """
    paths = [originals] if isinstance(originals, Path) else originals
    if missing := next((path for path in paths if not path.exists()), None):
        raise EvaluationError(f"--images {missing}: no such image or folder of images; check the path")
    return [_compare(curves, _original(paths, name), name, why, bpp, codecs, progress) for name, why in images.items()]


def data_uris(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Encode each comparison's original and items as WebP data URIs, at the best quality within `MAX_PICTURE_BYTES`."""
    pictures = [[c.original, *(item.pixels for item in c.items)] for c in comparisons]
    for quality in _QUALITIES:
        files = [[_webp(picture, quality) for picture in row] for row in pictures]
        if sum(len(file) for row in files for file in row) <= MAX_PICTURE_BYTES:
            break
    return [[f"data:image/webp;base64,{base64.b64encode(file).decode()}" for file in row] for row in files]


def _compare(
    curves: Sequence[Curve],
    original: RGB,
    name: str,
    why: str,
    bpp: float,
    codecs: Mapping[str, Codec],
    progress: Callable[[str], object],
) -> Comparison:
    """Make the pictures of one image."""
    pixels = original.shape[0] * original.shape[1]
    models = [curve for curve in curves if curve.kind == "model"]
    target = bpp
    if models:
        closest = min(models[-1].points, key=lambda point: abs(point.mean.bpp / bpp - 1))
        target = closest.images[name].bpp
    items = []
    for number, curve in enumerate(curves):
        progress(f"{name} {curve.title}")
        if curve.kind == "classical" and curve.key in CODECS:
            with add_name_to_errors(name):
                file = encode_nearest(CODECS[curve.key], original, max(1, round(target * pixels / 8)))
            items.append(_preview(number, 8 * len(file.data) / pixels, original, file.decode()))
        elif curve.kind == "model":
            point = min(curve.points, key=lambda point: abs(np.log(point.images[name].bpp / target)))
            if (decoded := _reconstruction(point, name, original, codecs)) is not None:
                items.append(_preview(number, point.images[name].bpp, original, decoded))
    return Comparison(name, why, target, original, items)


def _reconstruction(point: CurvePoint, name: str, original: RGB, codecs: Mapping[str, Codec]) -> RGB | None:
    """Return a model's reconstruction, from its codec or from the PNG beside its results; None without either."""
    codec = codecs.get(point.raw["provenance"].get("fingerprint", ""))
    if codec is not None:
        asked = point.raw.get("target", {})
        target = Target(**{field: asked[field] for field in Target.__dataclass_fields__ if field in asked})
        return codec.decompress(codec.encode(original, target).data).permute(1, 2, 0).numpy()
    folder = point.path.with_suffix("") / point.raw.get("folder", "") if point.path is not None else Path()
    pictures = (folder / f"{name}{suffix}" for suffix in (DECODED_SUFFIX, ".png"))  # names used by `jahp decompress`
    found = next((picture for picture in pictures if picture.is_file()), None)
    return None if found is None else decode_rgb(found)


def _preview(curve: int, bpp: float, original: RGB, decoded: RGB) -> Preview:
    quality = compare_arrays(original, decoded)
    return Preview(
        curve, bpp, quality.psnr, None if quality.ms_ssim is None else ms_ssim_to_decibels(quality.ms_ssim), decoded
    )


def _original(paths: Sequence[Path], name: str) -> RGB:
    """Read the original image that results call `name`."""
    for path in paths:
        path_without_suffix = (path if path.is_dir() else path.parent) / name
        folder = path_without_suffix.parent  # not always `path`, because a name may contain folders
        files = [path] if path.is_file() else sorted(folder.iterdir()) if folder.is_dir() else []
        for file in files:
            if file.suffix.lower() in SUFFIXES and file.with_suffix("") == path_without_suffix:
                return decode_rgb(file)
    searched = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
    raise EvaluationError(f"--images {searched}: has no image {name}; give the evaluated images, or their folder")


def _webp(picture: RGB, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=5, use_sharp_yuv=True)
    return buffer.getvalue()
