"""Defines rate-distortion curves: one codec at several rates, as points of bits per pixel and quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jahp_pl.evaluation import EvaluationError

Measure = Literal["psnr", "ms_ssim"]
MEASURES: dict[Measure, str] = {"psnr": "PSNR", "ms_ssim": "MS-SSIM"}
"""Quality measures with their titles; in reports, both are in dB."""
CurveKind = Literal["model", "classical", "published"]
"""Origin of a curve: `jahp evaluate`, `jahp classical`, or a publication."""


class QualityRow(NamedTuple):
    """Measures of one image, or the mean over all images."""

    name: str
    """Name of the image without suffix, or "mean"."""
    bpp: float
    """Bits per pixel of the whole file; positive."""
    psnr: float | None
    """PSNR in dB; None if unpublished or infinite."""
    ms_ssim: float | None
    """MS-SSIM in dB; None if unpublished, infinite, or undefined for a small image."""
    size: tuple[int, int] | None = None
    """Width and height of the image; None if unknown."""
    pixels: str = ""
    """Hash of its pixels; empty if unknown."""


@dataclass(frozen=True)
class CurvePoint:
    """One setting of one codec on all images."""

    quality: str
    """Lambda, quality or QP, as text."""
    mean: QualityRow
    images: Mapping[str, QualityRow] = field(default_factory=dict)
    """Measures of each image by name without suffix; empty for published points."""
    seconds: tuple[float, float] | None = None
    """Median seconds to encode and to decode an image; None if unknown."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """Other content of the file about this point: rate split, channels, provenance."""
    path: Path | None = None
    """File of the point."""


@dataclass(frozen=True)
class Curve:
    """One codec at several rates."""

    title: str
    """Title in figures and tables; unique in a report."""
    kind: CurveKind
    points: tuple[CurvePoint, ...]
    """Points with increasing rate."""
    images: frozenset[str]
    """Names, without suffix, of the images over which the curve averages."""
    key: str = ""
    """Name of a classical codec in `classical.CODECS`."""
    source: str = ""
    """Source of published points, or settings and machine of measured ones."""
    seeds: Mapping[int, Curve] = field(default_factory=dict)
    """For models trained with several seeds, one curve per seed; this curve is their mean."""

    def values(self, measure: Measure, image: str | None = None) -> list[tuple[float, float]]:
        """Return (bits per pixel, dB) in order of rate, for the mean or one image; skip points without the measure."""
        rows = [point.mean if image is None else point.images.get(image) for point in self.points]
        pairs = [(row.bpp, getattr(row, measure)) for row in rows if row is not None]
        return sorted((bpp, value) for bpp, value in pairs if value is not None)


def find_curve(curves: Sequence[Curve], name: str) -> Curve:
    """Find the curve whose title or codec name is `name`, otherwise the one whose title contains it, ignoring case.

    Raises:
        EvaluationError: if no curve matches, or more than one.
    """
    exact = [curve for curve in curves if name in (curve.title, curve.key)]
    found = exact or [curve for curve in curves if name.lower() in curve.title.lower()]
    if len(found) != 1:
        which = "none of the curves" if not found else "several curves"
        known = ", ".join(repr(curve.title) for curve in found or curves)
        raise EvaluationError(f"anchor {name!r}: matches {which}; choose among {known}")
    return found[0]
