"""State dicts as saved by CompressAI, made from models of this project."""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.config import EntropyModelName, ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import compressai

N, M = 8, 12


def model_of(entropy_model: EntropyModelName) -> CompressionModel:
    """Create a small model with random weights."""
    torch.manual_seed(3)
    return CompressionModel(ModelConfig(entropy_model, N, M)).eval()


def in_their_names(model: CompressionModel, flat: bool = False) -> dict[str, Tensor]:
    """Return the state dict that CompressAI would have for these weights, with its additional entries."""
    theirs = {ours: name for name, ours in compressai.NETWORKS.items()}
    singular = {plural: name for name, plural in compressai.PLURALS.items()}
    state = {}
    for name, tensor in model.state_dict().items():
        network, _, rest = name.partition(".")
        if network == "prior" and flat:
            kind, _, number = rest.partition(".")
            rest = f"_{singular[kind]}{number}"
        state[f"{theirs[network]}.{rest}"] = tensor.clone()
    state |= {f"entropy_bottleneck.{name}": torch.zeros(2) for name in ("quantiles", "target", "_quantized_cdf")}
    state |= {"gaussian_conditional.scale_table": torch.ones(64)}
    state |= {f"{name}_reparam.pedestal": torch.ones(1) for name in list(state) if name.endswith((".beta", ".gamma"))}
    return state
