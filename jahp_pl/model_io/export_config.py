"""Reads an export without torch: its config.json, and the bytes of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jahp_pl.config import ConfigError, LossConfig, ModelConfig, model_from_dict
from jahp_pl.config.parts import UnknownPartError
from jahp_pl.errors import JahpError
from jahp_pl.files import json_content
from jahp_pl.files.json_content import FINITE, Nullable
from jahp_pl.model_io.tensor_layout import DTYPES, EXPORT_FORMAT, Dtype

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
"""The files of an export."""
EXPORT_FORMAT_KEY = "jahp_pl_export"
"""Key in config.json; the value is `EXPORT_FORMAT`. Newer versions are refused."""
MAX_CONFIG_BYTES = 2**20
"""Maximum size of config.json in bytes; the rest of a larger file is not read."""
MAX_WEIGHTS_BYTES = 2**30
"""Maximum size of model.safetensors in bytes; larger files are not read. The paper's largest model needs a tenth."""
TABLE_PREFIX = "tables."
"""Prefix of the names of tensors that are coding tables, not weights."""
Metric = Literal["psnr", "ms-ssim"]
"""Metric that a model was trained for."""
METRICS: tuple[Metric, ...] = ("psnr", "ms-ssim")

_MEANS_SHAPE = {"bpp": float, "psnr": float, "ms_ssim": Nullable(float), "ms_ssim_db?": Nullable(float)}
RESULTS_SHAPE = _MEANS_SHAPE | {"images": str, "count": int, "points?": [_MEANS_SHAPE | {"quality": float}]}
"""Shape of the results in config.json, see `json_content.first_mismatch`."""
FACTS_SHAPE = {
    "step?": Nullable(int),
    "seconds?": Nullable(FINITE),
    "loss?": {"distortion?": Nullable(str), "lmbda?": Nullable(float), "lmbda_max?": Nullable(float)},
    "optim?": {},
    "data?": {"batch_size?": Nullable(int)},
}
"""Shape of the facts about a training that are shown."""
_CONFIG_SHAPE = {
    "model": {},
    "fingerprint": str,
    "sha256": str,
    "dtype?": str,
    "facts": FACTS_SHAPE,
    "results?": Nullable(RESULTS_SHAPE),
}
"""Shape of config.json without the architecture, which `ModelConfig` checks."""


class ExportError(JahpError, ValueError):
    """A folder that cannot be used or created; the message is one line that names it and the reason."""


def is_export(path: Path) -> bool:
    """Check whether this is a folder written by `export`, even if files are missing."""
    return (path / CONFIG_FILE).is_file() or (path / WEIGHTS_FILE).is_file()


def read_fingerprint(folder: Path) -> bytes:
    """Read the fingerprint in an export's config.json.

    Raises:
        ExportError: if config.json is missing or damaged.
    """
    config = read_config(folder)
    try:
        return bytes.fromhex(config["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from None


def read_checked_weights(folder: Path, checksum: str) -> bytes:
    """Read the bytes of an export's model.safetensors, and check them against the checksum.

    Args:
        folder: the export.
        checksum: the SHA-256 in its config.json, hexadecimal.

    Raises:
        ExportError: if the file is missing, too large or altered.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ExportError(f"{path}: is missing; export the model again")
    if (size := path.stat().st_size) > MAX_WEIGHTS_BYTES:
        raise ExportError(f"{path}: has {size} bytes, more than the maximum of {MAX_WEIGHTS_BYTES}; fetch it again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ExportError(
            f"{path}: does not match the checksum in {CONFIG_FILE} (altered or cut short); fetch it again"
        )
    return data


class ExportDescription(NamedTuple):
    """Content of an export's config.json."""

    architecture: ModelConfig
    dtype: Dtype
    """Type of the kernels."""
    version: int
    """Version of the export format, see `tensor_layout`."""
    checksum: str
    """SHA-256 of model.safetensors, hexadecimal."""
    fingerprint: bytes
    """Fingerprint of the codec, 8 bytes."""
    facts: dict[str, Any]
    """Facts about the training, as plain values."""
    results: dict[str, Any] | None
    """Result of `model_card.read_evaluation_results`; None if there is none."""


def read_description(folder: Path) -> ExportDescription:
    """Read and check config.json.

    Raises:
        ExportError: see `read_config`; also if something is missing, of another type, or unknown to this version.
    """
    config = read_config(folder)
    version = config[EXPORT_FORMAT_KEY]
    try:
        dtype: Dtype = "float32" if version == 1 else config["dtype"]
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}; upgrade jahp_pl")
        return ExportDescription(
            architecture=model_from_dict(config["model"]),
            dtype=dtype,
            version=version,
            checksum=str(config["sha256"]),
            fingerprint=bytes.fromhex(config["fingerprint"]),
            facts=dict(config["facts"]),
            results=None if config.get("results") is None else dict(config["results"]),
        )
    except UnknownPartError as error:
        raise ExportError(f"{folder}: {error}") from None
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from None


class CodecIdentity(NamedTuple):
    """Fingerprint and table names of a codec, as stated in an export or as found in a codec that was built."""

    fingerprint: bytes
    """8 bytes."""
    tables: Collection[str]
    """Names of its coding tables."""


def check_identity(folder: Path, stated: CodecIdentity, built: CodecIdentity) -> None:
    """Check that the codec that was built from an export is the one that was exported.

    Raises:
        ExportError: if it is not, or the export has tables that the codec does not use.
    """
    if extra := next((name for name in stated.tables if name not in built.tables), None):
        raise ExportError(f"{folder / WEIGHTS_FILE}: {TABLE_PREFIX}{extra} is unknown; export the model again")
    if built.fingerprint != stated.fingerprint:
        raise ExportError(
            f"{folder}: has fingerprint {built.fingerprint.hex()}, but was exported as {stated.fingerprint.hex()}; use "
            "the jahp_pl version that exported it, or export the model again"
        )


class ExportRates(NamedTuple):
    """Rates of an export, and the metric that it was trained for."""

    num_levels: int
    """Number of rate levels; 1 for a single-rate model."""
    lmbda: float | None
    """Lambda of its only or lowest level; None if unknown."""
    metric: Metric


def read_rates(folder: Path) -> ExportRates:
    """Read the rates of an export from its config.json.

    Raises:
        ExportError: if config.json is missing or damaged.
    """
    config = read_config(folder)
    try:
        loss = config["facts"].get("loss", {})
        lmbda = loss.get("lmbda")
        return ExportRates(
            int(config["model"].get("num_levels", 1)),
            None if lmbda is None else float(lmbda),
            "ms-ssim" if loss.get("distortion") == "ms_ssim" else "psnr",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from None


def objective_of(facts: Mapping[str, Any]) -> LossConfig | None:
    """Return the training objective in the facts about a model; None if they lack it or this version cannot read it."""
    stated = facts.get("loss")
    if not isinstance(stated, Mapping) or stated.get("distortion") not in ("mse", "ms_ssim"):
        return None
    try:
        is_mse = stated["distortion"] == "mse"
        lmbda_max = stated.get("lmbda_max")
        return LossConfig(
            "mse" if is_mse else "ms_ssim",
            float(stated["lmbda"]),
            None if lmbda_max is None else float(lmbda_max),
        )
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        ExportError: if it is missing, damaged, not of an export, or of a newer format.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ExportError(f"{path}: is missing; export the model again")
    try:
        with path.open("rb") as file:
            config = json_content.parse(file.read(MAX_CONFIG_BYTES))
    except ValueError:
        raise ExportError(f"{path}: is damaged; export the model again") from None
    version = config.get(EXPORT_FORMAT_KEY) if isinstance(config, dict) else None
    if type(version) is not int or version < 1:
        raise ExportError(f"{path}: does not belong to a jahp_pl export; give a folder that `jahp export` made")
    if version > EXPORT_FORMAT:
        raise ExportError(f"{path}: format {version} is newer than this jahp_pl reads; upgrade jahp_pl")
    if mismatch := json_content.first_mismatch(config, _CONFIG_SHAPE):
        raise ExportError(f"{path}: is damaged: {mismatch} is missing or has the wrong type; export the model again")
    result: dict[str, Any] = config
    return result


def _unreadable(folder: Path, error: Exception) -> ExportError:
    return ExportError(f"{folder / CONFIG_FILE}: cannot be read: {error}; export the model again")
