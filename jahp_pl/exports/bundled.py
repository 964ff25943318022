"""Models that come with the package: exports below `weights/`, one folder each, known by the folder's name.

Their quality counts from 1 in the order of the lambda they were trained with, so that no list needs to be kept. With no
folder there, everything works that names its model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from jahp_pl.exports.hub import PREFIX, download
from jahp_pl.exports.stated import ExportError, is_export, stated_fingerprint, stated_lmbda
from jahp_pl.folders import bring_back

FOLDER = Path(__file__).parents[1] / "weights"
NONE = "no models are bundled with this jahp_pl; give one: an export, a run folder or a checkpoint"


class Bundled(NamedTuple):
    """One of them."""

    quality: int
    """From 1, the smallest files."""
    name: str
    folder: Path


def bundled() -> list[Bundled]:
    """All, in the order of their quality; perhaps none.

    Raises:
        ExportError: the config.json of one is damaged.
    """
    folders = [path for path in FOLDER.glob("*/") if is_export(path)]
    lmbdas = {path: stated_lmbda(path) for path in folders}
    folders.sort(key=lambda path: (math.inf if lmbdas[path] is None else lmbdas[path], path.name))
    return [Bundled(number, path.name, path) for number, path in enumerate(folders, 1)]


def of_quality(quality: int | None) -> Bundled:
    """The bundled model of that quality; None means one in the middle.

    Raises:
        ExportError: there is none.
    """
    found = bundled()
    if not found:
        raise ExportError(NONE)
    if quality is None:
        return found[len(found) // 2]
    if not 1 <= quality <= len(found):
        raise ExportError(f"quality {quality}: must be from 1 to {len(found)}, the models that are bundled")
    return found[quality - 1]


def of_fingerprint(fingerprint: bytes) -> Bundled | None:
    """The bundled model that decodes a file, if there is one.

    Raises:
        ExportError: the config.json of one is damaged.
    """
    return next((one for one in bundled() if stated_fingerprint(one.folder) == fingerprint), None)


def names() -> str:
    """Of all bundled models, in words."""
    return ", ".join(model.name for model in bundled()) or "there are none"


def locate(model: str | Path | None, quality: int | None = None) -> Path:
    """Where a model is, in words that a person would use.

    Args:
        model: an export, a run folder, a checkpoint; else the name of a bundled model; or hf://USER/NAME, which is
            downloaded from the Hugging Face Hub. What exists as a path is never taken for a name. None takes a bundled
            model.
        quality: of the bundled model; None takes one in the middle.

    Raises:
        ExportError: there is no such model, or both are given.
    """
    if model is None:
        return of_quality(quality).folder
    if quality is not None:
        raise ExportError("a quality picks one of the bundled models; it does not go together with a model")
    if str(model).startswith(PREFIX):
        return download(str(model))
    path = Path(model)
    bring_back(path)
    if path.exists():
        return path
    if named := next((one for one in bundled() if one.name == str(model)), None):
        return named.folder
    raise ExportError(f"{model}: no such export, run folder or checkpoint, and no bundled model ({names()})")
