"""A model as a folder to keep and to give away, and the one place that makes a codec of whatever holds a model.

    model.safetensors   weights, and below `tables.` what freezing made of them with exp and erf
    config.json         format, architecture, fingerprint, checksum of model.safetensors, facts about the training

Guarantees: `load_codec` of an export gives a codec of the stated fingerprint or raises `ExportError`; nothing in the
folder is ever run, and no tensor may be missing, unknown, misshapen or altered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from jahp_pl.checkpoint import HYPER_PARAMETERS, find_checkpoint, first_difference, load_model, read_checkpoint
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.fixed_point import FreezeError
from jahp_pl.codec.pixels import MEMORY_LIMIT, Precision
from jahp_pl.config import ConfigError, model_from_dict
from jahp_pl.files import replace_folder
from jahp_pl.model import CompressionModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT_KEY = "jahp_pl_export"
"""In config.json; the value is `FORMAT`."""
FORMAT = 1
"""Version of the layout; a reader refuses newer ones."""
TABLES = "tables."
"""Prefix of the names of tensors that are no weights."""
MAX_CONFIG_BYTES = 2**20
MAX_WEIGHTS_BYTES = 2**30
"""A larger model.safetensors is refused unread: the paper's largest model takes a tenth."""


class ExportError(ValueError):
    """A folder that cannot be used or made; the message is one line that names it and says why."""


class Export(NamedTuple):
    """What a folder holds."""

    model: CompressionModel
    """In evaluation mode on the CPU."""
    tables: dict[str, Tensor]
    """For the Codec, see `Codec.tables`."""
    fingerprint: bytes
    """Of the codec that they make."""
    facts: dict[str, Any]
    """Plain values about where the weights come from."""


def export(model: CompressionModel, folder: Path, facts: Mapping[str, Any], overwrite: bool = False) -> Codec:
    """Write a model to a folder, at once or not at all.

    Args:
        model: trained weights.
        folder: to be made.
        facts: plain values (JSON) about the training.
        overwrite: replace an export that is there, if the folder holds nothing else.

    Returns:
        The codec of the folder.

    Raises:
        ExportError: the folder holds something already.
        FreezeError: weights that no codec can use.
        WriteError: the disk is full.
    """
    folder = free_folder(folder, {CONFIG, WEIGHTS}, overwrite)
    codec = Codec(model)
    tensors = dict(codec.model.state_dict()) | {f"{TABLES}{name}": t for name, t in codec.tables().items()}
    data = safetensors.torch.save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})
    config = {
        FORMAT_KEY: FORMAT,
        "model": dataclasses.asdict(model.config),
        "fingerprint": codec.fingerprint.hex(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "facts": dict(facts),
    }
    replace_folder(folder, {WEIGHTS: data, CONFIG: (json.dumps(config, indent=1) + "\n").encode()})
    return codec


def export_checkpoint(checkpoint: Path, folder: Path, overwrite: bool = False) -> Codec:
    """`export` the model of a checkpoint, with what is known of its training.

    Raises:
        CheckpointError: it cannot be read.
        ExportError, FreezeError, WriteError: see `export`.
    """
    facts = {"source": checkpoint.name, **training_facts(checkpoint)}
    return export(load_model(checkpoint), folder, facts, overwrite)


def load_export(folder: Path) -> Export:
    """Read a folder that `export` wrote.

    Raises:
        ExportError: a file is missing, damaged, altered, of a newer format or larger than its limit, or a tensor is
            missing, unknown or of another shape or type.
    """
    config = _read_config(folder / CONFIG)
    try:
        architecture = model_from_dict(config["model"])
        checksum, fingerprint, facts = (
            str(config["sha256"]),
            bytes.fromhex(config["fingerprint"]),
            dict(config["facts"]),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{folder / CONFIG}: cannot be read: {error}") from None
    path = folder / WEIGHTS
    if not path.is_file():
        raise ExportError(f"{path}: is missing; export the model again")
    if (size := path.stat().st_size) > MAX_WEIGHTS_BYTES:
        raise ExportError(f"{path}: takes {size} bytes, more than the {MAX_WEIGHTS_BYTES} of any model; fetch it again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ExportError(
            f"{path}: is not the file that {CONFIG} was written with (altered or cut short); fetch it again"
        )
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ExportError(f"{path}: damaged ({error})") from None
    tables = {name.removeprefix(TABLES): tensors.pop(name) for name in list(tensors) if name.startswith(TABLES)}
    with torch.device("meta"):  # shapes only, so that no config.json can ask for memory that the weights do not fill
        wanted = CompressionModel(architecture).state_dict()
    if difference := first_difference(wanted, tensors):
        raise ExportError(f"{path}: does not fit {CONFIG}: {difference}")
    if other := next((name for name, tensor in tensors.items() if tensor.dtype != torch.float32), None):
        raise ExportError(f"{path}: {other} is {tensors[other].dtype}, not float32")
    model = CompressionModel(architecture).float()  # whatever the default dtype
    model.load_state_dict(tensors)
    return Export(model.eval().requires_grad_(False), tables, fingerprint, facts)


def load_codec(
    path: str | Path, device: str = "cpu", precision: Precision = "float32", memory_limit: int = MEMORY_LIMIT
) -> Codec:
    """The codec of an export folder, a run folder or a checkpoint.

    Args:
        path: to any of them.
        device: where the networks run.
        precision: see `Codec`.
        memory_limit: bytes, see `Codec`.

    Raises:
        ExportError, CheckpointError: no usable model there.
        FreezeError: weights that no codec can use.
    """
    path = Path(path)
    if not is_export(path):
        return Codec(load_model(find_checkpoint(path)).to(device), None, precision, memory_limit)
    content = load_export(path)
    try:
        codec = Codec(content.model.to(device), content.tables, precision, memory_limit)
    except FreezeError as error:
        raise ExportError(f"{path}: {error}") from None
    if extra := next((name for name in content.tables if name not in codec.tables()), None):
        raise ExportError(f"{path / WEIGHTS}: {TABLES}{extra} is unknown")
    if codec.fingerprint != content.fingerprint:
        raise ExportError(
            f"{path}: freezes to model {codec.fingerprint.hex()}, but was exported as {content.fingerprint.hex()}; use "
            "the jahp_pl that exported it, or export the model again"
        )
    return codec


def free_folder(folder: Path, names: Set[str], overwrite: bool) -> Path:
    """The folder's full path, where it may be written.

    Args:
        folder: to be made.
        names: of the files that will be in it.
        overwrite: it may be there already, with files of these names and nothing else.

    Raises:
        ExportError: it may not.
    """
    folder = folder.resolve()
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {""} if folder.exists() else set()
    if found and not (overwrite and found <= names):
        remedy = "--force replaces it" if found <= names else "choose another name"
        raise ExportError(f"{folder}: exists; {remedy}")
    return folder


def is_export(path: Path) -> bool:
    """Whether this is a folder that `export` wrote, or what is left of one."""
    return (path / CONFIG).is_file() or (path / WEIGHTS).is_file()


def stated_fingerprint(folder: Path) -> bytes:
    """The fingerprint that an export says it has; its weights stay unread.

    Raises:
        ExportError: config.json is missing or damaged.
    """
    try:
        return bytes.fromhex(_read_config(folder / CONFIG)["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{folder / CONFIG}: cannot be read: {error}") from None


def training_facts(checkpoint: Path) -> dict[str, Any]:
    """Plain values about the run that wrote a checkpoint: how far it was, and the settings that are no names of places.

    Raises:
        CheckpointError: see `checkpoint.read_checkpoint`.
    """
    content = read_checkpoint(checkpoint)
    settings = content.get(HYPER_PARAMETERS, {})
    facts = {"step": content.get("global_step")}
    facts |= {name: settings[name] for name in ("seed", "loss", "optim", "trainer") if name in settings}
    data = settings.get("data", {})
    return facts | {"data": {name: data[name] for name in ("crop_size", "batch_size") if name in data}}


def _read_config(path: Path) -> dict[str, Any]:
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
