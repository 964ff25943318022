"""CompressAI's weights under this project's names.

Both build the same layers in the same order, so a state dict is renamed, never reshaped. What CompressAI stores besides
weights (coding tables, quantiles, bounds, masks) has no counterpart here and is left out. Needs neither CompressAI nor
more than its state dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from jahp_pl.config import ModelConfig

NETWORKS = {
    "g_a": "g_a",
    "g_s": "g_s",
    "h_a": "h_a",
    "h_s": "h_s",
    "context_prediction": "g_cm",
    "entropy_parameters": "g_ep",
    "entropy_bottleneck": "prior",
}
"""Name of a module in CompressAI -> here."""

NOT_WEIGHTS = re.compile(
    r"gaussian_conditional\..*"
    r"|entropy_bottleneck\.(quantiles|target|_offset|_quantized_cdf|_cdf_length|likelihood_lower_bound\.bound)"
    r"|context_prediction\.mask"
    r"|.*\.(beta|gamma)_reparam\..*"
)
"""Entries of a CompressAI state dict that follow from the weights or serve its coder only."""

FLAT_DENSITY = re.compile(r"entropy_bottleneck\._(matrix|bias|factor)(\d)")
"""How checkpoints of older CompressAI versions name the weights of the factorized density."""

PLURALS = {"matrix": "matrices", "bias": "biases", "factor": "factors"}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a CompressAI model -> weights for `CompressionModel(architecture(state))`, the same tensors.

    Args:
        state: state dict of FactorizedPrior, ScaleHyperprior, MeanScaleHyperprior or
            JointAutoregressiveHierarchicalPriors, as saved by 1.0 to 1.2, from DataParallel or not, before or after
            `update()`.

    Returns:
        A state dict to be loaded strictly. Entries of unknown name keep it, so that a strict load refuses them by name.
    """
    renamed = {}
    for key, tensor in state.items():
        key = FLAT_DENSITY.sub(_list_entry, key.removeprefix("module."))
        if not NOT_WEIGHTS.fullmatch(key):
            module, _, rest = key.partition(".")
            renamed[f"{NETWORKS.get(module, module)}.{rest}"] = tensor
    return renamed


def architecture(state: Mapping[str, Tensor]) -> ModelConfig:
    """Rung, N and M that a CompressAI state dict was made with.

    Raises:
        KeyError: `g_a` is not the one of these models.
    """
    weights = rename(state)
    num_filters, num_latents = len(weights["g_a.0.weight"]), len(weights["g_a.6.weight"])
    if "g_ep.0.weight" in weights:
        return ModelConfig("joint", num_filters, num_latents)
    if "h_s.4.weight" not in weights:
        return ModelConfig("factorized", num_filters, num_latents)
    has_means = len(weights["h_s.4.weight"]) == 2 * num_latents
    return ModelConfig("mean_scale_hyperprior" if has_means else "scale_hyperprior", num_filters, num_latents)


def _list_entry(match: re.Match[str]) -> str:
    return f"entropy_bottleneck.{PLURALS[match[1]]}.{match[2]}"
