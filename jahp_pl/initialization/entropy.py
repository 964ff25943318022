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
from jahp_pl.initialization.context import init_neighbors, pass_through, read_neighbors
from jahp_pl.initialization.hyperprior import (
    MEAN_GAIN,
    init_energies,
    init_local_means,
    read_energies,
    read_means,
)
from jahp_pl.initialization.layers import Outputs, init_head, layers_of
from jahp_pl.model import CompressionModel

SMALLEST_SCALE = 0.3
"""Smallest initial scale; latents that vary less than this all round to zero."""
SMALLEST_WITH_ENERGY = 0.2
"""Smallest standard deviation of latents that get an energy; below it, only one latent in a hundred is not zero."""
MEANS_SHARE = 1 / 6
"""Share of hyper-latents that are local means; each takes the room of two energies."""


@torch.no_grad()
def init_entropy_model(model: CompressionModel, std: Tensor) -> None:
    """Overwrite weights of h_a, h_s, g_cm, g_ep and the prior, if the model has them.

    Networks that a program registered keep their weights, except in the last layers of h_s and g_ep.

    Args:
        model: model with any entropy model.
        std: standard deviations of the latents, (M,).
    """
    scales = std.clamp(min=SMALLEST_SCALE)
    by_std: list[int] = std.argsort(descending=True, stable=True).tolist()
    hyper_std, mean_channels = _init_hyperprior(model, std, scales, by_std)
    if model.g_cm is not None and model.g_ep is not None:
        outputs = Outputs(len(std), model.config.num_components, model.density.has_means)
        init_head(layers_of(model.g_ep)[-1], outputs, scales)
        init_neighbors(model.g_cm)
        if isinstance(model.g_ep, EntropyParameterNetwork):
            is_known = isinstance(model.h_s, HyperSynthesis)
            num_used = pass_through(model.g_ep, outputs, mean_channels) if is_known else 0
            read_neighbors(model.g_ep, outputs, scales, by_std, num_used)
    if model.prior is not None:
        _init_prior(model.prior, hyper_std if model.h_a is not None else scales)


def _init_hyperprior(
    model: CompressionModel, std: Tensor, scales: Tensor, by_std: list[int]
) -> tuple[Tensor, list[int]]:
    """Initialize h_a and h_s if the model has them.

    Args:
        model: model with any entropy model.
        std: standard deviations of the latents, (M,).
        scales: initial scales, (M,).
        by_std: channels of y, in order of decreasing standard deviation.

    Returns:
        Standard deviations of the hyper-latents, (N,), and the channels of y whose local means are hyper-latents.
    """
    has_means = model.density.has_means
    hyper_std = torch.ones(model.config.num_filters)
    mean_channels: list[int] = []
    if model.h_s is None:
        return hyper_std, mean_channels
    # With a context model, psi is a first estimate of one scale and one mean; otherwise it has all components' values.
    outputs = Outputs(len(std), model.config.num_components if model.g_ep is None else 1, has_means)
    layers = layers_of(model.h_s)
    init_head(layers[-1], outputs, scales)
    if not isinstance(model.h_a, HyperAnalysis) or not isinstance(model.h_s, HyperSynthesis):
        return hyper_std, mean_channels
    if has_means:
        # Random weights would add noise to the means. Only the first component is reset because the others must differ.
        layers[-1].weight[outputs.num_scales :][: len(std)] = 0
        mean_channels = by_std[: min(round(MEANS_SHARE * len(hyper_std)), len(layers[0].bias) // 2)]
    num_with_energy = max(int((std >= SMALLEST_WITH_ENERGY).sum()), len(mean_channels))
    groups = init_energies(model.h_a, scales, by_std[:num_with_energy], len(mean_channels))
    if has_means:
        gains = MEAN_GAIN * scales[mean_channels]
        init_local_means(model.h_a, gains, len(groups))
        read_means(model.h_s, outputs, mean_channels, len(groups))
        hyper_std[len(groups) :][: len(mean_channels)] = gains
    read_energies(model.h_s, outputs, scales, groups, 2 * len(mean_channels))
    return hyper_std, mean_channels


def _init_prior(prior: FactorizedDensity, std: Tensor) -> None:
    """Give each channel of the prior the slope of a logistic density with this standard deviation."""
    # The logit's slope is divided among all layers; a logistic density of scale s has a standard deviation of 1.8 s.
    per_layer = (std / 1.8) ** (1 / len(prior.matrices))
    for matrix in prior.matrices:
        matrix.copy_(torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))[:, None, None].expand_as(matrix))
