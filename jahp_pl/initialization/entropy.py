"""Initializes the entropy model as simple estimators of each latent's mean and scale.

From random weights, a short run spends its steps on learning what is known in advance: a latent probably has a
magnitude similar to that of its surroundings, and a value near their mean. The weights are therefore set as follows:

- h_a: hyper-latents are local energies and, if the model has means, local means;
- h_s: scales follow the interpolated energies, means are the interpolated local means;
- g_cm: features are the left and the upper neighbour of each latent;
- g_ep: scales and means of h_s pass through, plus the magnitudes and means of the neighbours.

All other weights stay random, and all weights are trained. docs/study.md shows the effect of each part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.context import EntropyParameterNetwork
from jahp_pl.entropy_model import FactorizedDensity
from jahp_pl.hyperprior import HyperAnalysis, HyperSynthesis
from jahp_pl.initialization.context import pass_through, read_neighbours, start_neighbours
from jahp_pl.initialization.hyperprior import (
    MEAN_GAIN,
    read_energies,
    read_means,
    start_energies,
    start_local_means,
)
from jahp_pl.initialization.layers import Outputs, layers_of, start_head
from jahp_pl.model import CompressionModel

SMALLEST_SCALE = 0.3
"""Smallest initial scale; latents that vary less than this all round to zero."""
SMALLEST_WITH_ENERGY = 0.2
"""Smallest standard deviation of latents that get an energy; below it, one latent in a hundred is not zero."""
MEANS_SHARE = 1 / 6
"""Share of hyper-latents that are means; each takes the room of two energies."""


@torch.no_grad()
def start_entropy_model(model: CompressionModel, std: Tensor) -> None:
    """Overwrite weights of h_a, h_s, g_cm, g_ep and the prior, where the rung has them.

    Registered networks keep theirs, apart from the last layers of h_s and g_ep.

    Args:
        model: model of any rung.
        std: standard deviations of the latents, (M,).
    """
    scales = std.clamp(min=SMALLEST_SCALE)
    by_std: list[int] = std.argsort(descending=True, stable=True).tolist()
    has_means, num_components = model.density.has_means, model.config.num_components
    hyper_std, mean_channels = torch.ones(model.config.num_filters), []
    if isinstance(model.h_a, HyperAnalysis) and isinstance(model.h_s, HyperSynthesis):
        # With a context model, psi is a first estimate of one scale and one mean; otherwise it has those of all
        # components.
        outputs = Outputs(len(std), num_components if model.g_ep is None else 1, has_means)
        head = layers_of(model.h_s)[-1]
        start_head(head, outputs, scales)
        if has_means:
            # Random weights would add noise to the means; only the first component is reset, because the others must
            # differ.
            head.weight[outputs.num_scales :][: len(std)] = 0
            mean_channels = by_std[: min(round(MEANS_SHARE * len(hyper_std)), len(layers_of(model.h_s)[0].bias) // 2)]
        num_with_energy = max(int((std >= SMALLEST_WITH_ENERGY).sum()), len(mean_channels))
        groups = start_energies(model.h_a, scales, by_std[:num_with_energy], len(mean_channels))
        if has_means:
            gains = MEAN_GAIN * scales[mean_channels]
            start_local_means(model.h_a, gains, len(groups))
            read_means(model.h_s, outputs, mean_channels, len(groups))
            hyper_std[len(groups) :][: len(mean_channels)] = gains
        read_energies(model.h_s, outputs, scales, groups, 2 * len(mean_channels))
    elif model.h_s is not None:
        outputs = Outputs(len(std), num_components if model.g_ep is None else 1, has_means)
        start_head(layers_of(model.h_s)[-1], outputs, scales)
    if model.g_cm is not None and model.g_ep is not None:
        outputs = Outputs(len(std), num_components, has_means)
        start_head(layers_of(model.g_ep)[-1], outputs, scales)
        start_neighbours(model.g_cm)
    if model.g_cm is not None and isinstance(model.g_ep, EntropyParameterNetwork):
        is_known = isinstance(model.h_s, HyperSynthesis)
        num_used = pass_through(model.g_ep, outputs, mean_channels) if is_known else 0
        read_neighbours(model.g_ep, outputs, scales, by_std, num_used)
    if model.prior is not None:
        _start_prior(model.prior, hyper_std if model.h_a is not None else scales)


def _start_prior(prior: FactorizedDensity, std: Tensor) -> None:
    """Set the slopes of the prior to those of logistic densities with these standard deviations."""
    # All layers share in the slope of the logit; a logistic density of scale s has standard deviation 1.8 s.
    per_layer = (std / 1.8) ** (1 / len(prior.matrices))
    for matrix in prior.matrices:
        matrix.copy_(torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))[:, None, None].expand_as(matrix))
