"""Writes models to export folders, and reads them.

    model.safetensors   weights as stored by `tensors`, and tables computed with exp and erf, with the prefix `tables.`
    config.json         format, architecture, dtype of the weights, fingerprint, checksum of model.safetensors, facts
                        about the training, results on images
    README.md           the same information as a model card

Guarantees: nothing in the folder is executed, and no tensor may be missing, unknown, misshapen or altered.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.devices import on_cpu
from jahp_pl.files.atomic import resolved
from jahp_pl.files.folders import replace_folder
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.build import build_model, meta_state_dict
from jahp_pl.model_io.checkpoint import (
    find_checkpoint,
    is_plain_tensor,
    load_checkpoint_model,
    training_facts,
)
from jahp_pl.model_io.compensated_rounding import round_kernels
from jahp_pl.model_io.export_config import (
    CARD_FILE,
    CONFIG_FILE,
    EXPORT_FORMAT_KEY,
    TABLE_PREFIX,
    WEIGHTS_FILE,
    ExportError,
    is_export,
    read_checked_weights,
    read_description,
)
from jahp_pl.model_io.model_card import format_card, read_evaluation_results
from jahp_pl.model_io.tensor_layout import EXPORT_FORMAT, Dtype
from jahp_pl.model_io.tensors import restore, store, store_table
from jahp_pl.text import encoded, shortened


class Export(NamedTuple):
    """Content of an export folder."""

    model: CompressionModel
    """In evaluation mode on the CPU."""
    tables: dict[str, Tensor]
    """Tables for the codec, see `Codec.tables`."""
    fingerprint: bytes
    """Fingerprint of the resulting codec."""
    facts: dict[str, Any]
    """Facts about the training, as plain values."""
    dtype: Dtype
    """Dtype of the kernels in the file."""
    version: int
    """Version of its format, see `tensor_layout.EXPORT_FORMAT`."""
    results: dict[str, Any] | None
    """Result of `model_card.read_evaluation_results`; None if there is none."""


@on_cpu()
def export(
    model: CompressionModel,
    folder: Path,
    facts: Mapping[str, Any],
    overwrite: bool = False,
    *,
    dtype: Dtype = "float32",
    tables: Mapping[str, Tensor] | None = None,
    results: Path | Mapping[str, Any] | None = None,
) -> Codec:
    """Write a model to a folder, completely or not at all.

    Args:
        model: trained weights.
        folder: folder to create.
        facts: plain values (JSON) about the training.
        overwrite: whether to replace an existing export; not allowed if the folder contains anything else.
        dtype: dtype of the kernels, see `tensors`; the codec is made from the weights after this rounding.
        tables: `Codec.tables` to store; None computes them here.
        results: results of this codec: a file of `jahp evaluate`, or the result of `read_evaluation_results`.

    Returns:
        The codec of the folder, on the CPU.

    Raises:
        ExportError: if the folder exists and may not be replaced, or the results are of another codec.
        UnusableModelError: if no codec can use the weights.
        WriteError: if the folder cannot be written, e.g. because the disk is full.
    """
    folder = check_target_folder(folder, {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}, overwrite)
    rounded = copy.deepcopy(model).cpu().float().eval()
    compensated = round_kernels(rounded) if dtype == "int8" else {}
    stored = store(rounded.state_dict() | compensated, dtype)
    rounded.load_state_dict(restore(stored, rounded.state_dict(), dtype))
    codec = Codec(rounded, tables)
    if isinstance(results, Path):
        results = read_evaluation_results(results, codec.fingerprint)
    tensors = stored | {f"{TABLE_PREFIX}{name}": store_table(table) for name, table in codec.tables().items()}
    data = safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})
    config = {
        EXPORT_FORMAT_KEY: EXPORT_FORMAT,
        "model": dataclasses.asdict(model.config),
        "dtype": dtype,
        "fingerprint": codec.fingerprint.hex(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "facts": dict(facts),
        **({"results": dict(results)} if results else {}),
    }
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    text = format_card(folder.name, model.config, num_parameters, codec.fingerprint, facts, results)
    contents = {WEIGHTS_FILE: data, CARD_FILE: encoded(text), CONFIG_FILE: encoded(json.dumps(config, indent=1) + "\n")}
    replace_folder(folder, contents)
    return codec


def export_from(
    source: Path,
    folder: Path,
    overwrite: bool = False,
    dtype: Dtype | None = None,
    results: Path | None = None,
    note: str | None = None,
) -> Codec:
    """Export a model from any source, with the facts about its training.

    Args:
        source: a checkpoint, a run folder, or an export, which may be `folder` itself.
        folder: folder to create.
        overwrite: see `export`.
        dtype: dtype of the kernels; None keeps that of an export, and is float32 otherwise.
        results: a file of `jahp evaluate`; None keeps the results of an export while they are valid.
        note: a sentence about the training for the model card; None keeps that of an export.

    Raises:
        CheckpointError: if the source cannot be read.
        ExportError, UnusableModelError, WriteError: see `export`.
    """
    noted = {} if note is None else {"note": note}
    if not is_export(source):
        path = find_checkpoint(source)
        facts = {"source": path.name, **training_facts(path), **noted}
        model = load_checkpoint_model(path)
        return export(model, folder, facts, overwrite, dtype=dtype or "float32", results=results)
    content = load_export(source)
    dtype = dtype or content.dtype
    # In all other cases, the export rounds weights that were not rounded before.
    is_same_codec = dtype == "float32" or (dtype == content.dtype and content.version == EXPORT_FORMAT)
    kept_results = content.results if results is None and is_same_codec else results
    facts = content.facts | noted
    return export(content.model, folder, facts, overwrite, dtype=dtype, tables=content.tables, results=kept_results)


@on_cpu()
def load_export(folder: Path) -> Export:
    """Read a folder written by `export`.

    Raises:
        ExportError: if a file is missing, damaged, altered, too new or too large, or a tensor is missing, unknown, or
            of another shape or dtype.
    """
    described = read_description(folder)
    tensors = _read_tensors(folder, described.checksum)
    tables = {
        name.removeprefix(TABLE_PREFIX): tensors.pop(name) for name in list(tensors) if name.startswith(TABLE_PREFIX)
    }
    # Shapes only, so that config.json cannot request more memory than the weights fill.
    expected = meta_state_dict(described.architecture)
    try:
        state = restore(tensors, expected, described.dtype, described.version)
    except ValueError as error:
        raise ExportError(
            f"{folder / WEIGHTS_FILE}: does not fit {CONFIG_FILE}: {error}; export the model again"
        ) from None
    if unusable := next((name for name, tensor in state.items() if not is_plain_tensor(tensor)), None):
        raise ExportError(
            f"{folder / WEIGHTS_FILE}: {unusable} is not finite or not a plain tensor; export the model again"
        )
    model = build_model(described.architecture, state)
    doubles = {name: table.double() for name, table in tables.items()}
    return Export(
        model, doubles, described.fingerprint, described.facts, described.dtype, described.version, described.results
    )


def _read_tensors(folder: Path, checksum: str) -> dict[str, Tensor]:
    data = read_checked_weights(folder, checksum)
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ExportError(f"{folder / WEIGHTS_FILE}: is damaged ({error}); fetch it again") from None


def check_target_folder(folder: Path, names: Set[str], overwrite: bool) -> Path:
    """Check that a folder may be written, and return its full path.

    Args:
        folder: folder to create.
        names: names of the files that will be in it.
        overwrite: whether it may exist already, with files of these names and nothing else.

    Raises:
        ExportError: if it may not be written.
    """
    folder = resolved(folder)
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: is a file; choose another name")
    if folder.is_symlink():  # a resolved path that is still a link
        raise ExportError(f"{folder}: is a link to itself; choose another name")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if foreign := sorted(found - names):
        raise ExportError(
            f"{folder}: holds {shortened(foreign[0])}, which does not belong to an export; choose another name"
        )
    if found and not overwrite:
        raise ExportError(f"{folder}: exists; --force replaces it")
    return folder
