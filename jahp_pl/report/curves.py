"""Rate-distortion curves: one codec over its rates, as points of bits per pixel and quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jahp_pl.evaluation import EvaluationError

Metric = Literal["psnr", "ms_ssim"]
METRICS: dict[Metric, str] = {"psnr": "PSNR", "ms_ssim": "MS-SSIM"}
"""How a file's pictures are judged, both in dB here, and how to call it."""
Kind = Literal["model", "classical", "published"]


class Measured(NamedTuple):
    """One image, or the mean over all."""

    name: str
    bpp: float
    psnr: float | None
    """dB; None where it was not published or is infinite."""
    ms_ssim: float | None
    """dB."""
    size: tuple[int, int] | None = None
    """Width and height of the image, where known."""
    pixels: str = ""
    """Hash of its pixels, where known."""


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
