"""Models that come with the package: exports below `weights/`, one folder each, known by the folder's name.

Which one is used where none is named follows from what they say of themselves, so that no list needs to be kept:
variable-rate models come first, then models of one rate in the order of their lambda. With no folder there, everything
works that names its model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from jahp_pl.exports.hub import PREFIX, download
from jahp_pl.exports.stated import METRICS, ExportError, Metric, Stated, is_export, stated_fingerprint, stated_rates
from jahp_pl.folders import bring_back

FOLDER = Path(__file__).parents[1] / "weights"
NONE = "no models are bundled with this jahp_pl; give one: an export, a run folder or a checkpoint"


class Bundled(NamedTuple):
    """One of them."""

    name: str
    folder: Path
    stated: Stated


def bundled() -> list[Bundled]:
    """All, variable-rate models first, those for PSNR before those for MS-SSIM; perhaps none.

    Raises:
        ExportError: the config.json of one is damaged.
    """
    found = [Bundled(path.name, path, stated_rates(path)) for path in FOLDER.glob("*/") if is_export(path)]
    return sorted(found, key=_order)


def _order(model: Bundled) -> tuple[bool, int, float, str]:
    stated = model.stated
    lmbda = math.inf if stated.lmbda is None else stated.lmbda
    return stated.num_levels == 1, METRICS.index(stated.metric), lmbda, model.name


def default_model(metric: Metric | None = None) -> Bundled:
    """The bundled model that is used where none is named: the first variable-rate one, or else one in the middle.

    Args:
        metric: only among models that were trained for it.

    Raises:
        ExportError: there is none.
    """
    found = [model for model in bundled() if metric in (None, model.stated.metric)]
    if not found:
        raise ExportError(NONE if metric is None else f"no model for {metric} is bundled with this jahp_pl")
    return found[0] if found[0].stated.num_levels > 1 else found[len(found) // 2]


def of_fingerprint(fingerprint: bytes) -> Bundled | None:
    """The bundled model that decodes a file, if there is one.

    Raises:
        ExportError: the config.json of one is damaged.
    """
    return next((one for one in bundled() if stated_fingerprint(one.folder) == fingerprint), None)


def names() -> str:
    """Of all bundled models, in words."""
    return ", ".join(model.name for model in bundled()) or "there are none"


def locate(model: str | Path | None, metric: Metric | None = None) -> Path:
    """Where a model is, in words that a person would use.

    Args:
        model: an export, a run folder, a checkpoint; else the name of a bundled model; or hf://USER/NAME, which is
            downloaded from the Hugging Face Hub. What exists as a path is never taken for a name. None takes a bundled
            model.
        metric: of the bundled model; not together with a model.

    Raises:
        ExportError: there is no such model, or both are given.
    """
    if model is None:
        return default_model(metric).folder
    if metric is not None:
        raise ExportError("a metric picks one of the bundled models; it does not go together with a model")
    if str(model).startswith(PREFIX):
        return download(str(model))
    path = Path(model)
    bring_back(path)
    if path.exists():
        return path
    if named := next((one for one in bundled() if one.name == str(model)), None):
        return named.folder
    raise ExportError(f"{model}: no such export, run folder or checkpoint, and no bundled model ({names()})")
