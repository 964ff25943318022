"""Loads models and codecs from bundled models, exports, run folders and checkpoints.

Guarantees: `load_codec` of an export returns a codec with the stated fingerprint or raises `ExportError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.devices import check_device, on_cpu
from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.codec.transforms.runner import MEMORY_LIMIT, Precision
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import find_checkpoint, load_checkpoint_model, training_facts
from jahp_pl.model_io.export import load_export
from jahp_pl.model_io.export_config import (
    CodecIdentity,
    ExportError,
    Metric,
    check_identity,
    is_export,
    objective_of,
    read_config,
)
from jahp_pl.model_io.pretrained import locate_model


@on_cpu()
def load_model(model: str | Path | None = None, *, metric: Metric | None = None) -> CompressionModel:
    """Load the networks of any model source, in evaluation mode on the CPU.

    Args:
        model: a path, the name of a bundled model, or hf://USER/NAME; None takes a bundled model. See `load_codec`.
        metric: metric that the bundled model was trained for, "psnr" or "ms-ssim"; not allowed with `model`.

    Raises:
        ExportError, CheckpointError: if there is no usable model.
    """
    path = locate_model(model, metric)
    return load_export(path).model if is_export(path) else load_checkpoint_model(find_checkpoint(path))


@on_cpu()
def load_codec(
    model: str | Path | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    memory_limit: int = MEMORY_LIMIT,
    *,
    metric: Metric | None = None,
) -> Codec:
    """Load the codec of a bundled model, an export, a run folder or a checkpoint.

    Args:
        model: a path, the name of a bundled model, or hf://USER/NAME on the Hugging Face Hub. None takes a bundled
            model.
        device: device that runs the networks: "cpu", "cuda", "mps", ...
        precision: precision of the convolutions of g_a and g_s, "float32" or "bfloat16"; any file decodes with either.
        memory_limit: bytes that the transforms may use at a time; larger images are processed in tiles.
        metric: metric that the bundled model was trained for, "psnr" or "ms-ssim"; None takes the default model. Not
            allowed with `model`.

    Raises:
        ExportError, CheckpointError: if there is no usable model.
        DeviceError: if the device cannot be used.
        UnusableModelError: if no codec can use the weights of a checkpoint.
        MemoryLimitError: if the memory limit is too low for the model.
    """
    path = locate_model(model, metric)
    check_device(device)
    if not is_export(path):
        found = find_checkpoint(path)
        objective = objective_of(training_facts(found))
        return Codec(load_checkpoint_model(found).to(device), None, precision, memory_limit, objective)
    content = load_export(path)
    try:
        objective = objective_of(content.facts)
        codec = Codec(content.model.to(device), content.tables, precision, memory_limit, objective)
    except UnusableModelError as error:
        raise ExportError(f"{path}: {error}") from None
    stated = CodecIdentity(content.fingerprint, content.tables)
    check_identity(path, stated, CodecIdentity(codec.fingerprint, codec.tables()))
    return codec


def read_facts(model: str | Path) -> dict[str, Any]:
    """Read the facts about a model's training, see `checkpoint.training_facts`; an export may have none.

    Args:
        model: a path, the name of a bundled model, or hf://USER/NAME, see `load_codec`.

    Raises:
        ExportError, CheckpointError: if there is no usable model.
    """
    path = locate_model(model)
    facts: dict[str, Any] = read_config(path)["facts"] if is_export(path) else training_facts(find_checkpoint(path))
    return facts
