"""What an export says of itself in its config.json; the weights stay unread, and torch is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jahp_pl.config import ConfigError, LossConfig
from jahp_pl.errors import JahpError

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
"""The files of an export."""
FORMAT_KEY = "jahp_pl_export"
"""In config.json; the value is `FORMAT`."""
FORMAT = 2
"""Version of the layout; a reader refuses newer ones. 1 had all 25 taps of g_cm, and tables in float64."""
MAX_CONFIG_BYTES = 2**20
Metric = Literal["psnr", "ms-ssim"]
METRICS: tuple[Metric, ...] = ("psnr", "ms-ssim")


class ExportError(JahpError, ValueError):
    """A folder that cannot be used or made; the message is one line that names it and says why."""


def is_export(path: Path) -> bool:
    """Whether this is a folder that `export` wrote, or what is left of one."""
    return (path / CONFIG).is_file() or (path / WEIGHTS).is_file()


def stated_fingerprint(folder: Path) -> bytes:
    """The fingerprint that an export says it has.

    Raises:
        ExportError: config.json is missing or damaged.
    """
    try:
        return bytes.fromhex(read_config(folder)["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from None


class Stated(NamedTuple):
    """What an export says of its rates and of what it was trained for."""

    num_levels: int
    """1 for a model of one rate."""
    lmbda: float | None
    """Of its only or its lowest level; None where the export does not say."""
    metric: Metric
    """What it was trained for."""


def stated_rates(folder: Path) -> Stated:
    """See `Stated`.

    Raises:
        ExportError: config.json is missing or damaged.
    """
    config = read_config(folder)
    try:
        loss = config["facts"].get("loss", {})
        lmbda = loss.get("lmbda")
        return Stated(
            int(config["model"].get("num_levels", 1)),
            None if lmbda is None else float(lmbda),
            "ms-ssim" if loss.get("distortion") == "ms_ssim" else "psnr",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from None


def objective_of(facts: Mapping[str, Any]) -> LossConfig | None:
    """What a model was trained for, as facts about its training state it; None where they do not, or not in words of
    this version."""
    stated = facts.get("loss")
    if not isinstance(stated, Mapping) or stated.get("distortion") not in ("mse", "ms_ssim"):
        return None
    try:
        is_squares = stated["distortion"] == "mse"
        lmbda_max = stated.get("lmbda_max")
        return LossConfig(
            "mse" if is_squares else "ms_ssim",
            float(stated["lmbda"]),
            None if lmbda_max is None else float(lmbda_max),
        )
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """The whole of config.json.

    Raises:
        ExportError: it is missing, damaged, of something else or of a newer format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ExportError(f"{path}: is missing; export the model again")
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(MAX_CONFIG_BYTES))
    except (ValueError, RecursionError):
        raise ExportError(f"{path}: damaged; export the model again") from None
    version = config.get(FORMAT_KEY) if isinstance(config, dict) else None
    if not isinstance(version, int):
        raise ExportError(f"{path}: not the config.json of an export of jahp_pl")
    if version > FORMAT:
        raise ExportError(f"{path}: format {version} is newer than this jahp_pl reads; upgrade it")
    result: dict[str, Any] = config
    return result


def _unreadable(folder: Path, error: Exception) -> ExportError:
    return ExportError(f"{folder / CONFIG}: cannot be read: {error}")
