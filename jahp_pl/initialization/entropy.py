"""Initializes the entropy model as simple estimators of each latent's mean and scale.

From random weights, a short run spends its steps on learning what is known in advance: a latent's magnitude is
probably similar to its neighbors', and its value is near their mean. The weights are therefore set as follows:

- h_a: hyper-latents are local energies and, if the model has means, local means;
- h_s: scales follow the interpolated energies, means are the interpolated local means;
- g_cm: features are the left and the upper neighbor of each latent;
- g_ep: the scales and means from h_s pass through; the neighbors' magnitudes and means are added.

All other weights stay random, and all weights are trained. docs/short-training.md shows the effect of each part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.context import EntropyParameterNetwork
from jahp_pl.entropy_model import FactorizedDensity
from jahp_pl.hyperprior import HyperAnalysis, HyperSynthesis
from jahp_pl.initialization.building_blocks import HeadLayout, init_head, layers_of
from jahp_pl.initialization.context import init_neighbors, pass_psi, read_neighbors
from jahp_pl.initialization.hyperprior import InitialHyperLatents, init_hyper_transforms
from jahp_pl.initialization.latent_spread import LatentSpread
from jahp_pl.model import CompressionModel


@torch.no_grad()
def init_entropy_model(model: CompressionModel, std: Tensor) -> None:
    """Overwrite weights of h_a, h_s, g_cm, g_ep and the prior, if the model has them.

    Registered networks keep their weights, except in the heads (the last layers) of h_s and g_ep.

    Args:
        model: model with any entropy model.
        std: standard deviations of the latents, (M,).
    """
    spread = LatentSpread(std)
    z = _init_hyperprior(model, spread)
    _init_context(model, spread, z.mean_channels)
    if model.prior is not None:
        _init_prior(model.prior, z.std if model.h_a is not None else spread.scales)


def _init_hyperprior(model: CompressionModel, spread: LatentSpread) -> InitialHyperLatents:
    """Initialize h_a and h_s if the model has them."""
    z = InitialHyperLatents(torch.ones(model.config.num_filters), [])
    if model.h_s is None:
        return z
    # With a context model, psi is a first estimate of one scale and one mean; otherwise it has all components' values.
    num_components = model.config.num_components if model.g_ep is None else 1
    layout = HeadLayout(model.config.num_latents, num_components, model.density.has_means)
    init_head(layers_of(model.h_s)[-1], layout, spread)
    if isinstance(model.h_a, HyperAnalysis) and isinstance(model.h_s, HyperSynthesis):
        z = init_hyper_transforms(model.h_a, model.h_s, layout, spread)
    return z


def _init_context(model: CompressionModel, spread: LatentSpread, mean_channels: list[int]) -> None:
    """Initialize g_cm and g_ep if the model has them.

    Args:
        model: model after `_init_hyperprior`.
        spread: statistics of the latents.
        mean_channels: channels of y whose means h_s estimates.
    """
    if model.g_cm is None or model.g_ep is None:
        return
    layout = HeadLayout(model.config.num_latents, model.config.num_components, model.density.has_means)
    init_head(layers_of(model.g_ep)[-1], layout, spread)
    init_neighbors(model.g_cm)
    if isinstance(model.g_ep, EntropyParameterNetwork):
        num_used = pass_psi(model.g_ep, layout, mean_channels) if isinstance(model.h_s, HyperSynthesis) else 0
        read_neighbors(model.g_ep, layout, spread, num_used)


def _init_prior(prior: FactorizedDensity, std: Tensor) -> None:
    """Give each channel of the prior the slope of a logistic density with this standard deviation, (C,)."""
    # The logit's slope is divided among all layers; a logistic density of scale s has a standard deviation of 1.8 s.
    per_layer = (std / 1.8) ** (1 / len(prior.matrices))
    for matrix in prior.matrices:
        matrix.copy_(torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))[:, None, None].expand_as(matrix))
