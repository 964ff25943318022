"""Untrained models of a few thousand weights, for the tests of the forward pass."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn

from jahp_pl.config import EntropyModelName, ModelConfig
from jahp_pl.model import CompressionModel, ModelOutput

ENTROPY_MODELS: tuple[EntropyModelName, ...] = get_args(EntropyModelName)
WITH_HYPERPRIOR: tuple[EntropyModelName, ...] = ("scale_hyperprior", "mean_scale_hyperprior", "joint")


def tiny(entropy_model: EntropyModelName = "joint", **settings: Any) -> CompressionModel:
    """Create a model with N = 6 and M = 8."""
    return CompressionModel(ModelConfig(entropy_model=entropy_model, num_filters=6, num_latents=8, **settings))


def lively(model: CompressionModel) -> CompressionModel:
    """Scale the latents up, because with random weights all of them would round to zero."""
    with torch.no_grad():
        for network in (model.g_a, model.h_a):
            if network is not None:
                assert isinstance(network, nn.Sequential)
                last = network[-1]
                assert isinstance(last, nn.Conv2d)
                assert last.bias is not None
                last.weight *= 60
                last.bias.normal_(0, 4)
    return model


def flatten(output: ModelOutput) -> list[Tensor]:
    """List the tensors of an output, including the parameters of the density, if there are any."""
    return [*output[:4], *(output.parameters or ())]
