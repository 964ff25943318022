"""Rate and distortion of a model, as its export tells them: means out of a file that `jahp evaluate` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jahp_pl.exports.stated import ExportError

KODAK = {f"kodim{number:02}" for number in range(1, 25)}


def read_results(path: Path, fingerprint: bytes) -> dict[str, Any]:
    """What an export tells of them: on which images, how many, and their means: bits per pixel of whole files, PSNR in
    dB, MS-SSIM from 0 to 1 and in dB. Of several qualities, those of the middle one, and all as "points".

    Args:
        path: a file of `jahp evaluate`.
        fingerprint: of the model that it must be about.

    Raises:
        ExportError: it cannot be read, is no such file, or is about another model.
    """
    try:
        content = json.loads(path.read_text())
        measured = bytes.fromhex(content["provenance"]["fingerprint"])
        points = content["curves"][0]["points"] if "curves" in content else [content]
        names = [Path(image["name"]).stem for image in points[0]["images"]]
        results = {
            "images": "Kodak" if set(names) == KODAK else "other images",
            "count": len(names),
            **_figures(points[len(points) // 2]["mean"]),
            "date": content["provenance"].get("date"),
        }
        if "curves" in content:
            results["points"] = [{"quality": p["target"]["quality"]} | _figures(p["mean"]) for p in points]
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ExportError(f"{path}: no results of `jahp evaluate`") from None
    if measured != fingerprint:
        raise ExportError(
            f"{path}: results of model {measured.hex()}, but this one is {fingerprint.hex()}; evaluate this one"
        )
    return results


def _figures(mean: Mapping[str, Any]) -> dict[str, float | None]:
    values = {name: mean[f"file_{name}"] for name in ("bpp", "psnr", "ms_ssim")} | {
        "ms_ssim_db": mean.get("file_ms_ssim_db")
    }
    return {name: None if value is None else float(value) for name, value in values.items()}
