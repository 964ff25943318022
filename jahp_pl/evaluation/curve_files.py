"""Reads and checks files of `jahp classical`, so that another call can continue them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.image_set import ImageIdentity, may_be_same_image
from jahp_pl.files import json_content
from jahp_pl.text import count_of

_POINT = {"quality": int, "mean": {"file_bpp": float, "file_psnr": float}, "images": [{"name": str}]}
"""Shape of a measured point, see `json_content.first_mismatch`."""


def read_curve_file(path: Path) -> dict[str, Any]:
    """Read a file with the entries "curves" and, optionally, "unfinished"; without a file, there are no curves.

    Raises:
        EvaluationError: if the file is truncated or has other content.
    """
    if not path.exists():
        return {"curves": []}
    remedy = "move it away, or choose another --output"
    try:
        content = json_content.read(path)
    except ValueError as error:
        raise EvaluationError(f"{path}: is not JSON ({error}); {remedy}") from None
    if not _is_curve_file(content):
        raise EvaluationError(f"{path}: has no results of `jahp classical`; {remedy}")
    result: dict[str, Any] = content
    return result


def check_stored_images(
    path: Path, curves: Sequence[dict[str, Any]], identities: Sequence[ImageIdentity], names: Sequence[str], force: bool
) -> None:
    """Refuse to mix curves of different images, which cannot be compared, or to replace such curves without `force`.

    Args:
        path: path of the file, for messages.
        curves: curves in the file.
        identities: images to be coded.
        names: codecs that will code them.
        force: whether their curves may be replaced.

    Raises:
        EvaluationError: if the file covers other images and has curves that may not be replaced.
    """
    others = {
        curve["name"]: len(point["images"])
        for curve in curves
        if not _is_published(curve)
        for point in curve["points"]
        if not rows_match_images(point["images"], identities)
    }
    if not others:
        return
    number = max(others.values())
    found = f"{path}: has results of {count_of(number, 'other image')}"
    if staying := sorted(set(others) - set(names)):
        raise EvaluationError(
            f"{found} with {', '.join(staying)}; choose another --output, or give these codecs too and --force"
        )
    if not force:
        raise EvaluationError(f"{found}; choose another --output, or replace them with --force")


def rows_match_images(rows: Sequence[dict[str, Any]], identities: Sequence[ImageIdentity]) -> bool:
    """Check whether the rows of a point belong to these images; rows of early versions lack the hash of pixels."""
    return len(rows) == len(identities) and all(
        row["name"] == image.name and _may_be_image(row, image) for row, image in zip(rows, identities, strict=True)
    )


def _may_be_image(row: dict[str, Any], image: ImageIdentity) -> bool:
    size = (row.get("width", image.width), row.get("height", image.height))
    return may_be_same_image((size, row.get("pixels", "")), ((image.width, image.height), image.pixels))


def _is_curve_file(content: object) -> bool:
    if not isinstance(content, dict):
        return False
    curves, unfinished = content.get("curves"), content.get("unfinished", [])
    return isinstance(curves, list) and isinstance(unfinished, list) and all(map(_is_curve, [*curves, *unfinished]))


def _is_curve(curve: object) -> bool:
    if not isinstance(curve, dict) or not isinstance(curve.get("name"), str):
        return False
    points = curve.get("points")
    if not isinstance(points, list) or _is_published(curve):
        return isinstance(points, list)
    return isinstance(curve.get("provenance"), dict) and json_content.first_mismatch(points, [_POINT]) is None


def _is_published(curve: dict[str, Any]) -> bool:
    return curve.get("kind") == "published"
