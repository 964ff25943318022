"""Rate and distortion of a model, as its export tells them: means out of a file that `jahp evaluate` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jahp_pl.exports.stated import ExportError

KODAK = {f"kodim{number:02}" for number in range(1, 25)}


def read_results(path: Path, fingerprint: bytes) -> dict[str, Any]:
    """What an export tells of them: on which images, how many, and their means: bits per pixel of whole files, PSNR in
    dB, MS-SSIM from 0 to 1 and in dB.

    Args:
        path: a file of `jahp evaluate`.
        fingerprint: of the model that it must be about.

    Raises:
        ExportError: it cannot be read, is no such file, or is about another model.
    """
    try:
        content = json.loads(path.read_text())
        measured, mean = bytes.fromhex(content["provenance"]["fingerprint"]), content["mean"]
        names = [Path(image["name"]).stem for image in content["images"]]
        figures = {name: mean[f"file_{name}"] for name in ("bpp", "psnr", "ms_ssim")}
        results = {
            "images": "Kodak" if set(names) == KODAK else "other images",
            "count": len(names),
            **{name: None if value is None else float(value) for name, value in figures.items()},
            "ms_ssim_db": mean.get("file_ms_ssim_db"),
            "date": content["provenance"].get("date"),
        }
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ExportError(f"{path}: no results of `jahp evaluate`") from None
    if measured != fingerprint:
        raise ExportError(
            f"{path}: results of model {measured.hex()}, but this one is {fingerprint.hex()}; evaluate this one"
        )
    return results
