"""Trained models by name: those that come with the package, and those on the Hugging Face Hub.

The bundled models are exports below `weights/`, one folder each, known by the folder's name.

Which one is used where none is named follows from what they say of themselves, so that no list needs to be kept:
variable-rate models come first, then models of one rate in the order of their lambda. With no folder there, everything
works that names its model.

The Hub needs `pip install 'jahp_pl[hub]'`; what comes from it is checked as every export is, before it is used:

    push("models/mine", "user/mine")              an export, its model card included, as a repository of models
    jahp_pl.load_codec("hf://user/mine")          and from there, by the Hub's own cache; @REVISION may follow
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import NamedTuple

from jahp_pl.folders import bring_back
from jahp_pl.model_io.export_config import (
    CARD,
    CONFIG,
    METRICS,
    WEIGHTS,
    ExportError,
    Metric,
    Stated,
    is_export,
    stated_fingerprint,
    stated_rates,
)

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


PREFIX = "hf://"
FILES = [WEIGHTS, CONFIG, CARD]


def push(folder: str | Path, repo: str, private: bool = False) -> str:
    """Send an export to the Hub; the repository is made if it is not there.

    Args:
        folder: that `jahp export` wrote.
        repo: USER/NAME.
        private: make it visible to its owner only; a repository that is there stays as it is.

    Returns:
        The address of its page.

    Raises:
        ExportError: no export there, or the Hub refuses; the message says why.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise ExportError(f"{folder}: no export; make one with `jahp export`")
    _require()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(library_name="jahp_pl")
    try:
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, allow_patterns=FILES, commit_message="Export of jahp_pl"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refused(repo, error) from None
    return str(url)


def download(name: str) -> Path:
    """The folder of an export from the Hub; what is in the cache already is not fetched again.

    Args:
        name: hf://USER/NAME, perhaps followed by @ and a branch, a tag or a commit.

    Raises:
        ExportError: no such repository, or no network; the message says why.
    """
    _require()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repo, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        folder = snapshot_download(repo, revision=revision or None, allow_patterns=FILES, library_name="jahp_pl")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refused(name, error) from None
    return Path(str(folder))


def _refused(name: str, error: Exception) -> ExportError:
    return ExportError(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")


def _require() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ExportError("the Hub needs one more package; install it with: pip install 'jahp_pl[hub]'")
