"""Uses CompressAI 1.2.8 as the oracle: its networks, its likelihoods, and a brief training with its own loss.

Its forward pass mixes two quantizer rules (mbt2018 feeds round(y) to the context and to g_s, but computes the
likelihood of round(y - mu) + mu) and rounds z around learned medians. Therefore the oracle is assembled from
CompressAI's modules, each of which is called with given latents.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

try:
    import torchvision as _torchvision  # noqa: F401
except RuntimeError:
    # The CUDA wheel of torchvision cannot load its own operators beside a CPU build of torch, but still registers shape
    # functions for these two at import, so their schemas must be defined first. The variable keeps them alive.
    _SCHEMAS = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for _name in ("nms", "qnms"):
        _SCHEMAS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]

from compressai import models

from jahp_pl.entropy_model import LOG_LIKELIHOOD_MIN

CLASSES = {
    "factorized": models.FactorizedPrior,
    "scale_hyperprior": models.ScaleHyperprior,
    "mean_scale_hyperprior": models.MeanScaleHyperprior,
    "joint": models.JointAutoregressiveHierarchicalPriors,
}
"""CompressAI's classes by entropy model; it has no model with a context but without a hyperprior."""

LIKELIHOOD_BOUND = math.exp(LOG_LIKELIHOOD_MIN)
"""Lower bound to which smaller likelihoods are raised, as in this project; CompressAI's own bound, 1e-9, is lower."""


class Answers(NamedTuple):
    """Results of a model for given latents; None for results that it lacks."""

    x_hat: Tensor
    """Reconstruction, (B, 3, H, W)."""
    mu: Tensor | None
    """Means, (B, M, h, w); zero for `scale_hyperprior`."""
    sigma: Tensor | None
    """Scales, (B, M, h, w), >= 0.11."""
    p_y: Tensor
    """Likelihood of each y_hat, (B, M, h, w), >= `LIKELIHOOD_BOUND`."""
    p_z: Tensor | None
    """Likelihood of each z_hat, (B, N, h / 4, w / 4), >= `LIKELIHOOD_BOUND`."""
    bits: float
    """Total bits of all latents and hyper-latents."""


def latents(net: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Compute y = g_a(x) and z = h_a(y), unquantized."""
    y = net.g_a(x)
    if isinstance(net, models.FactorizedPrior):
        return y, None
    return y, net.h_a(y if isinstance(net, models.MeanScaleHyperprior) else y.abs())


def answers(net: Any, y_hat: Tensor, z_hat: Tensor | None) -> Answers:
    """Run CompressAI's modules on these latents. Likelihoods are in float32; bits are computed in float64."""
    x_hat = net.g_s(y_hat)
    if z_hat is None:
        exact = _factorized(copy.deepcopy(net.entropy_bottleneck).double(), y_hat.double())
        return Answers(x_hat, None, None, _factorized(net.entropy_bottleneck, y_hat), None, _bits(exact))

    raw = net.h_s(z_hat)
    if isinstance(net, models.JointAutoregressiveHierarchicalPriors):
        raw = net.entropy_parameters(torch.cat((raw, net.context_prediction(y_hat)), dim=1))
    has_means = isinstance(net, models.MeanScaleHyperprior)
    scales, means = raw.chunk(2, 1) if has_means else (raw, torch.zeros_like(raw))
    p_y = _conditional(net.gaussian_conditional, y_hat, scales, means)
    p_z = _factorized(net.entropy_bottleneck, z_hat)
    conditional = copy.deepcopy(net.gaussian_conditional).double()
    bits = _bits(_conditional(conditional, y_hat.double(), scales.double(), means.double()))
    bits += _bits(_factorized(copy.deepcopy(net.entropy_bottleneck).double(), z_hat.double()))
    return Answers(x_hat, means, net.gaussian_conditional.lower_bound_scale(scales), p_y, p_z, bits)


def medians(net: Any) -> Tensor:
    """Return the medians (1, C, 1, 1) around which CompressAI rounds the values that its factorized density codes."""
    quantiles: Tensor = net.entropy_bottleneck.quantiles
    return quantiles[:, 0, 1].detach().view(1, -1, 1, 1)


def train_briefly(net: Any, photographs: Sequence[Tensor], num_steps: int, lmbda: float = 0.013) -> list[float]:
    """Train with Adam on random 128x128 crops and CompressAI's own noisy forward, then compute quantiles and tables.

    Args:
        net: a CompressAI model, changed in place.
        photographs: images (3, H, W) in [0, 1], at least 128 pixels high and wide.
        num_steps: number of steps of eight crops each.
        lmbda: trade-off between rate and distortion.

    Returns:
        The loss at every step: bits per pixel + lmbda * 255^2 * MSE.
    """
    side, batch = 128, 8
    weights = [p for name, p in net.named_parameters() if not name.endswith("quantiles")]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    losses = []
    net.train()
    for _ in range(num_steps):
        x = torch.stack([_random_crop(photographs, side) for _ in range(batch)])
        out = net(x)
        bits = -sum(p.log2().sum() for p in out["likelihoods"].values())
        loss = bits / (batch * side**2) + lmbda * 255**2 * (out["x_hat"] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    net.eval().update(force=True, update_quantiles=True)
    return losses


def _factorized(bottleneck: Any, values: Tensor) -> Tensor:
    channels_first = values.transpose(0, 1)
    likelihood, _, _ = bottleneck._likelihood(channels_first.reshape(len(channels_first), 1, -1))
    likelihood = likelihood.clamp(min=LIKELIHOOD_BOUND)
    rows: Tensor = likelihood.reshape(channels_first.shape)
    return rows.transpose(0, 1)


def _conditional(conditional: Any, values: Tensor, scales: Tensor, means: Tensor) -> Tensor:
    likelihood: Tensor = conditional._likelihood(values, scales, means)
    return likelihood.clamp(min=LIKELIHOOD_BOUND)


def _bits(likelihoods: Tensor) -> float:
    return -float(likelihoods.log().sum(dtype=torch.float64)) / math.log(2)


def _random_crop(photographs: Sequence[Tensor], side: int) -> Tensor:
    photograph = photographs[int(torch.randint(len(photographs), ()))]
    top, left = (int(torch.randint(size - side + 1, ())) for size in photograph.shape[1:])
    return photograph[:, top : top + side, left : left + side]
