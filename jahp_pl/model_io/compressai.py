"""Loads weights of CompressAI into this project's models.

Both have the same layers in the same order, so weights are renamed, never reshaped. Everything else in CompressAI's
files (coding tables, quantiles, bounds, masks) has no counterpart here and is dropped. CompressAI itself is not needed.

The networks are the same but the coded files differ: CompressAI rounds y - mu and z - median, this project rounds y and
z.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import CheckpointError, check_readable
from jahp_pl.model_io.tensor_layout import first_difference

NETWORKS = {
    "g_a": "g_a",
    "g_s": "g_s",
    "h_a": "h_a",
    "h_s": "h_s",
    "context_prediction": "g_cm",
    "entropy_parameters": "g_ep",
    "entropy_bottleneck": "prior",
}
"""Module names in CompressAI and here."""

NOT_WEIGHTS = re.compile(
    r"gaussian_conditional\..*"
    r"|entropy_bottleneck\.(quantiles|target|_offset|_quantized_cdf|_cdf_length|likelihood_lower_bound\.bound)"
    r"|context_prediction\.mask"
    r"|.*\.(beta|gamma)_reparam\..*"
)
"""Entries of a CompressAI state dict that are derived from the weights or used only by its coder."""

FLAT_DENSITY = re.compile(r"entropy_bottleneck\._(matrix|bias|factor)(\d)")
"""Names of the factorized density's weights in checkpoints of older CompressAI versions."""

PLURALS = {"matrix": "matrices", "bias": "biases", "factor": "factors"}


def load_compressai(path: str | Path) -> CompressionModel:
    """Load a checkpoint of bmshj2018-factorized, bmshj2018-hyperprior, mbt2018-mean or mbt2018.

    Args:
        path: file written by torch.save: a state dict, or a dict with one under "state_dict", as CompressAI's training
            script writes it.

    Returns:
        The model, in evaluation mode on the CPU. No pickled code is run.

    Raises:
        CheckpointError: if the file is missing, damaged, has more than tensors and plain values, or belongs to
            another model.
    """
    path = Path(path)
    state = _state_dict(path)
    try:
        model = CompressionModel(infer_architecture(state)).float()
    except (KeyError, IndexError, TypeError):
        raise CheckpointError(
            f"{path}: has no weights of bmshj2018-factorized, bmshj2018-hyperprior, mbt2018-mean or mbt2018; "
            "give a checkpoint of one of them"
        ) from None
    weights = rename_weights(state)
    if difference := first_difference(model.state_dict(), weights):
        raise CheckpointError(
            f"{path}: looks like a {model.config.entropy_model} model, but {difference}; use another checkpoint"
        )
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def _state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file without running pickled code.

    Raises:
        CheckpointError: if it is missing or has no tensors.
        OSError: if it may not be read.
    """
    check_readable(path)
    try:
        with warnings.catch_warnings():  # about unusual pickles, which are refused below if they cannot be loaded
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: is not a checkpoint, or has pickled code, which is never run; save its state_dict() alone"
        ) from None
    except Exception as error:  # noqa: BLE001  torch's readers raise nearly every type on damaged files
        raise CheckpointError(
            f"{path}: is not a checkpoint, or is damaged ({type(error).__name__}); use another one"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: has no state dict; save the model's state_dict() with torch.save")
    return {name: tensor for name, tensor in state.items() if isinstance(name, str) and isinstance(tensor, Tensor)}


def rename_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a CompressAI model for `CompressionModel(infer_architecture(state))`; tensors are shared.

    Args:
        state: state dict of FactorizedPrior, ScaleHyperprior, MeanScaleHyperprior or
            JointAutoregressiveHierarchicalPriors, as saved by versions 1.0 to 1.2, with or without DataParallel, before
            or after `update()`.

    Returns:
        A state dict for strict loading. Entries with unknown names keep them, so that a strict load reports them.
    """
    renamed = {}
    for key, tensor in state.items():
        key = FLAT_DENSITY.sub(_list_entry, key.removeprefix("module."))
        if not NOT_WEIGHTS.fullmatch(key):
            module, _, rest = key.partition(".")
            renamed[f"{NETWORKS.get(module, module)}.{rest}"] = tensor
    return renamed


def infer_architecture(state: Mapping[str, Tensor]) -> ModelConfig:
    """Infer the entropy model, N and M of a CompressAI state dict.

    Raises:
        KeyError: if `g_a` is not the one of these models.
    """
    weights = rename_weights(state)
    num_filters, num_latents = len(weights["g_a.0.weight"]), len(weights["g_a.6.weight"])
    if "g_ep.0.weight" in weights:
        return ModelConfig("joint", num_filters, num_latents)
    if "h_s.4.weight" not in weights:
        return ModelConfig("factorized", num_filters, num_latents)
    has_means = len(weights["h_s.4.weight"]) == 2 * num_latents
    return ModelConfig("mean_scale_hyperprior" if has_means else "scale_hyperprior", num_filters, num_latents)


def _list_entry(match: re.Match[str]) -> str:
    """Return the current name of a weight from its name in older versions."""
    return f"entropy_bottleneck.{PLURALS[match[1]]}.{match[2]}"
