"""Finds trained models by name: bundled ones, and those on the Hugging Face Hub.

The bundled models are exports below `weights/`, one folder each, named by the folder.

The default model is the first variable-rate one; if there is none, the middle one of the single-rate models in the
order of their lambda. If no model is bundled, only commands that name no model fail.

The Hub needs `pip install 'jahp_pl[hub]'`; downloads are validated like every export before they are used:

    push("models/mine", "user/mine")              uploads an export with its model card as a model repository
    jahp_pl.load_codec("hf://user/mine")          loads it through the Hub's own cache; @REVISION may follow
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import NamedTuple

from jahp_pl.addresses import is_address
from jahp_pl.errors import describe_error
from jahp_pl.files.folders import recover_if_missing
from jahp_pl.model_io.export_config import (
    CARD_FILE,
    CONFIG_FILE,
    METRICS,
    WEIGHTS_FILE,
    ExportError,
    ExportRates,
    Metric,
    is_export,
    read_fingerprint,
    read_rates,
)
from jahp_pl.text import shortened

HUB_PREFIX = "hf://"
"""Start of the name of a model on the Hub."""
EXPORT_FILES = [WEIGHTS_FILE, CONFIG_FILE, CARD_FILE]
"""Files that are uploaded and downloaded."""
BUNDLED_FOLDER = Path(__file__).parents[1] / "weights"
"""Folder of the bundled models."""
NO_MODELS = "no models are bundled with this jahp_pl; give one: an export, a run folder or a checkpoint"


class BundledModel(NamedTuple):
    """A model that comes with the package."""

    name: str
    """Name of its folder."""
    folder: Path
    rates: ExportRates


def bundled_models() -> list[BundledModel]:
    """List the bundled models: variable-rate models first, those for PSNR before those for MS-SSIM; may be empty.

    Raises:
        ExportError: if the config.json of a bundled model is damaged.
    """
    found = [BundledModel(path.name, path, read_rates(path)) for path in BUNDLED_FOLDER.glob("*/") if is_export(path)]
    return sorted(found, key=_order)


def _order(model: BundledModel) -> tuple[bool, int, float, str]:
    rates = model.rates
    lmbda = math.inf if rates.lmbda is None else rates.lmbda
    return rates.num_levels == 1, METRICS.index(rates.metric), lmbda, model.name


def default_model(metric: Metric | None = None) -> BundledModel:
    """Return the default bundled model: the first variable-rate one, otherwise the middle one.

    Args:
        metric: consider only models trained for it.

    Raises:
        ExportError: if there is none.
    """
    found = [model for model in bundled_models() if metric in (None, model.rates.metric)]
    if not found:
        if metric is not None and metric not in METRICS:
            raise ExportError(f"metric {metric}: must be one of {', '.join(METRICS)}")
        raise ExportError(
            NO_MODELS
            if metric is None
            else f"no model for {metric} is bundled with this jahp_pl; give an export, a run folder or a checkpoint"
        )
    return found[0] if found[0].rates.num_levels > 1 else found[len(found) // 2]


def bundled_with_fingerprint(fingerprint: bytes) -> BundledModel | None:
    """Return the bundled model that decodes files with this fingerprint, or None.

    Raises:
        ExportError: if the config.json of a bundled model is damaged.
    """
    return next((one for one in bundled_models() if read_fingerprint(one.folder) == fingerprint), None)


def bundled_names() -> str:
    """Return the names of all bundled models, comma-separated."""
    return ", ".join(model.name for model in bundled_models()) or "there are none"


def locate_model(model: str | Path | None, metric: Metric | None = None) -> Path:
    """Resolve a model's path or name to a path.

    Args:
        model: an export, a run folder or a checkpoint; otherwise the name of a bundled model, or hf://USER/NAME, which
            is downloaded from the Hugging Face Hub. An existing path takes precedence over a name. None takes a bundled
            model.
        metric: metric that the bundled model was trained for; None takes the default model. Not allowed with `model`.

    Raises:
        ExportError: if there is no such model, or both arguments are given.
    """
    if model is None:
        return default_model(metric).folder
    if metric is not None:
        raise ExportError("metric picks one of the bundled models; leave out metric or model")
    if str(model).startswith(HUB_PREFIX):
        return download(str(model))
    path = Path(model)
    try:
        recover_if_missing(path)
        if path.exists():
            if path.name in EXPORT_FILES and is_export(path.parent):
                raise ExportError(f"{path}: is one file of an export; did you mean its folder, {path.parent}?")
            return path
    except OSError as error:  # e.g. a name that is too long
        raise ExportError(f"{shortened(model, 100)}: is not a usable path ({error.strerror}); correct it") from None
    if named := next((one for one in bundled_models() if one.name == str(model)), None):
        return named.folder
    if is_address(str(model)):
        raise ExportError(
            f"{shortened(model)}: addresses of models have the form {HUB_PREFIX}USER/NAME; download others first"
        )
    raise ExportError(
        f"{model}: no such export, run folder, checkpoint or bundled model ({bundled_names()}); correct its path "
        "or name"
    )


def push(folder: str | Path, repo: str, private: bool = False) -> str:
    """Upload an export to the Hub; the repository is created if needed.

    Args:
        folder: folder written by `jahp export`.
        repo: USER/NAME.
        private: make a new repository visible only to its owner; an existing one is not changed.

    Returns:
        The URL of its page.

    Raises:
        ExportError: if there is no export, or the Hub refuses; the message says why.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise ExportError(f"{folder}: is not an export; make one with `jahp export`")
    _require_hub()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(library_name="jahp_pl")
    try:
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, allow_patterns=EXPORT_FILES, commit_message="Export of jahp_pl"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _hub_error(repo, error) from None
    return str(url)


def download(name: str) -> Path:
    """Download an export from the Hub, or take it from the cache, and return its folder.

    Args:
        name: hf://USER/NAME, optionally followed by @ and a branch, tag or commit.

    Raises:
        ExportError: if there is no such repository, or no network; the message says why.
    """
    _require_hub()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repo, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    try:
        folder = snapshot_download(repo, revision=revision or None, allow_patterns=EXPORT_FILES, library_name="jahp_pl")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _hub_error(name, error) from None
    return Path(str(folder))


def _hub_error(name: str, error: Exception) -> ExportError:
    """Convert an error from the Hub to one with a one-line message."""
    return ExportError(f"{name}: {' '.join(describe_error(error).split())}")


def _require_hub() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ExportError("the Hub needs huggingface_hub, which is not installed; pip install 'jahp_pl[hub]'")
