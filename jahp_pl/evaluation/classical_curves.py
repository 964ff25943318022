"""Measures curves of classical codecs with real files, per image and on average, in the format of an evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jahp_pl.evaluation.classical import CODECS, ClassicalCodec, encode
from jahp_pl.evaluation.curve_files import check_stored_images, read_curve_file, rows_match_images
from jahp_pl.evaluation.image_set import ImageIdentity, Original, add_name_to_errors, identify, pixels_hash
from jahp_pl.files.atomic import write_json
from jahp_pl.files.locks import exclusive
from jahp_pl.images.io import RGB, decode_rgb
from jahp_pl.measurement.roundtrip import mean_of, mean_of_known
from jahp_pl.quality import compare_arrays, ms_ssim_to_decibels


class ClassicalRow(NamedTuple):
    """Size and quality of one file, or means over several files; fields as in `measurement.roundtrip.CodingRow`."""

    name: str
    """Name of the image, see `image_set.Original`."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    pixels: str
    """See `image_set.pixels_hash`; empty for a mean."""
    file_bytes: int
    """Length of the whole file."""
    file_bpp: float
    """Bits per pixel of the whole file."""
    file_psnr: float
    """PSNR of the decoded 8-bit image in dB."""
    file_ms_ssim: float | None
    """MS-SSIM from 0 to 1; None if a side is too short (`quality.MS_SSIM_MIN_SIDE`)."""
    encode_seconds: float
    """Seconds from the pixels to the file's content, in memory."""
    decode_seconds: float
    """Seconds from the file's content to the pixels, in memory."""


@dataclass
class _PartialCurve:
    """Curve that is being measured."""

    codec: ClassicalCodec
    identity: dict[str, Any]
    """Entries that identify the curve: codec and settings. Points with different ones belong to another curve."""
    provenance: dict[str, Any]
    points: dict[int, dict[str, Any]]
    """Finished points by quality."""
    replaces_old: bool
    """Whether it will replace an existing curve, which stays in the file until everything is done."""

    def is_complete(self) -> bool:
        return all(quality in self.points for quality in self.codec.curve_qualities)

    def to_json(self) -> dict[str, Any]:
        points = [self.points[quality] for quality in self.codec.qualities if quality in self.points]
        return {**self.identity, "provenance": self.provenance, "points": points}


def code_images(codec: ClassicalCodec, images: Sequence[Original], quality: int) -> list[ClassicalRow]:
    """Code every image at one quality, decode it, and measure size, quality and time.

    Raises:
        EvaluationError: if the codec's package is not installed, or it cannot code an image.
        ImageError: if an image cannot be read.
    """
    return [_code(codec, decode_rgb(source), name, quality) for source, name in images]


def point_to_json(quality: int, rows: Sequence[ClassicalRow]) -> dict[str, Any]:
    """Convert one point of a curve to values that JSON can hold, and add means in which all images weigh the same."""
    return {"quality": quality, "mean": _row_to_json(_mean(rows)), "images": [_row_to_json(row) for row in rows]}


def measure_curves(
    names: Sequence[str],
    images: Sequence[Original],
    out: Path,
    provenance: dict[str, Any],
    force: bool = False,
    progress: Callable[[str, int, dict[str, Any]], object] = lambda *_: None,
) -> dict[str, Any]:
    """Measure the curves of several codecs; write the file after each point, and skip points that it already has.

    If a codec's stored curve has other settings, or with `force`, the curve is measured again. The old curves stay in
    the file until everything requested is done; until then, new points are stored as "unfinished", and another call
    continues from them.

    Args:
        names: keys of `classical.CODECS`, all different.
        images: result of `image_set.find_originals`.
        out: results file, locked against other processes; curves of other codecs in it are kept.
        provenance: provenance of new measurements.
        force: whether to measure existing points again.
        progress: called after each point, measured or skipped, with the codec's name, the number of points done and
            the point.

    Returns:
        The content of the file: `{"curves": [...]}`.

    Raises:
        EvaluationError: before anything is coded, if the file has other content or, without `force`, other images.
        EvaluationError, ImageError, WriteError: as for `code_images`, `image_set.identify` and `locks.exclusive`.
    """
    curve_identities = {name: _curve_identity(name) for name in names}
    identities = identify(images)
    with exclusive(out):
        stored = read_curve_file(out)
        check_stored_images(out, stored["curves"], identities, names, force)
        curves = [
            _begin_curve(name, identity, stored, identities, provenance, force)
            for name, identity in curve_identities.items()
        ]
        for name, curve in zip(names, curves, strict=True):
            for done, quality in enumerate(curve.codec.curve_qualities, start=1):
                if quality not in curve.points:
                    curve.points[quality] = point_to_json(quality, code_images(curve.codec, images, quality))
                    curve.provenance = provenance
                    write_json(out, _merged(stored, curves))
                progress(name, done, curve.points[quality])
        content = _merged(stored, curves)
        if content != stored:
            write_json(out, content)
        return content


def _curve_identity(name: str) -> dict[str, Any]:
    """Return the entries of a curve that identify it."""
    codec = CODECS[name]
    return {
        "name": name, "title": codec.title, "kind": "classical", "knob": codec.knob, "settings": codec.settings()
    }  # fmt: skip


def _begin_curve(
    name: str,
    identity: dict[str, Any],
    stored: dict[str, Any],
    identities: Sequence[ImageIdentity],
    provenance: dict[str, Any],
    force: bool,
) -> _PartialCurve:
    """Create a curve from the stored points that need not be measured again."""

    def find(curves: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        return next((curve for curve in curves if curve["name"] == name), None)

    def is_same_curve(curve: dict[str, Any]) -> bool:
        return {key: curve.get(key) for key in identity} == identity

    def kept(curve: dict[str, Any]) -> dict[int, dict[str, Any]]:
        return {point["quality"]: point for point in curve["points"] if rows_match_images(point["images"], identities)}

    old, unfinished = find(stored["curves"]), find(stored.get("unfinished", ()))
    if old is not None and is_same_curve(old) and not force:
        return _PartialCurve(CODECS[name], identity, old["provenance"], kept(old), False)
    replaces_old = force or old is not None
    if (
        unfinished is not None
        and is_same_curve(unfinished)
        and _measuring_conditions(unfinished["provenance"]) == _measuring_conditions(provenance)
    ):
        return _PartialCurve(CODECS[name], identity, unfinished["provenance"], kept(unfinished), replaces_old)
    return _PartialCurve(CODECS[name], identity, provenance, {}, replaces_old)


def _measuring_conditions(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the provenance that affects the measured values or times."""
    return {key: value for key, value in provenance.items() if key not in ("date", "command")}


def _merged(stored: dict[str, Any], measured: Sequence[_PartialCurve]) -> dict[str, Any]:
    """Return the content of the file, updated with the points measured so far."""
    are_complete = all(curve.is_complete() for curve in measured)
    new = {curve.identity["name"]: curve.to_json() for curve in measured if curve.points}
    waiting = {curve.identity["name"] for curve in measured if curve.replaces_old and not are_complete}
    ready = {name: curve for name, curve in new.items() if name not in waiting}
    unfinished = {curve["name"]: curve for curve in stored.get("unfinished", ()) if curve["name"] not in ready}
    unfinished |= {name: curve for name, curve in new.items() if name in waiting}
    there = [curve["name"] for curve in stored["curves"]]
    curves = [ready.get(curve["name"], curve) for curve in stored["curves"]]
    curves += [curve for name, curve in ready.items() if name not in there]
    others = {key: value for key, value in stored.items() if key != "unfinished"}
    return others | {"curves": curves} | ({"unfinished": list(unfinished.values())} if unfinished else {})


def _code(codec: ClassicalCodec, image: RGB, name: str, quality: int) -> ClassicalRow:
    """Code one image, decode it, and measure size, quality and time."""
    with add_name_to_errors(name):
        start = time.perf_counter()
        file = encode(codec, image, quality)
        coded = time.perf_counter()
        shown = file.decode()
        decoded = time.perf_counter()
    measured = compare_arrays(image, shown)
    return ClassicalRow(
        name=name,
        width=image.shape[1],
        height=image.shape[0],
        pixels=pixels_hash(image),
        file_bytes=len(file.data),
        file_bpp=8 * len(file.data) / (image.shape[0] * image.shape[1]),
        file_psnr=measured.psnr,
        file_ms_ssim=measured.ms_ssim,
        encode_seconds=coded - start,
        decode_seconds=decoded - coded,
    )


def _mean(rows: Sequence[ClassicalRow]) -> ClassicalRow:
    """Average over images with equal weight; MS-SSIM only over images that have it."""
    mean = partial(mean_of, rows)
    return ClassicalRow(
        name="mean",
        width=round(mean("width")),
        height=round(mean("height")),
        pixels="",
        file_bytes=round(mean("file_bytes")),
        file_bpp=mean("file_bpp"),
        file_psnr=mean("file_psnr"),
        file_ms_ssim=mean_of_known(rows, "file_ms_ssim"),
        encode_seconds=mean("encode_seconds"),
        decode_seconds=mean("decode_seconds"),
    )


def _row_to_json(row: ClassicalRow) -> dict[str, Any]:
    """Convert a row to plain values, and add MS-SSIM in decibels."""
    similarity = row.file_ms_ssim
    rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in row._asdict().items() if v != ""}
    return rounded | ({} if similarity is None else {"file_ms_ssim_db": round(ms_ssim_to_decibels(similarity), 4)})
