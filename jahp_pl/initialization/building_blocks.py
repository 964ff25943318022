"""Building blocks for the initial weights of an entropy model: layers, pairs of units, and heads, i.e. last layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jahp_pl.initialization.latent_spread import LatentSpread

NOISE = 0.1
"""Factor of the random weights of the heads, whose inputs are as large as latents instead of about one."""
SIGNS = torch.tensor([1.0, -1.0])
"""Weights to or from a pair of units that carry v and -v: a signed value v passes through LeakyReLUs only as a pair,
because the difference of their outputs is proportional to v."""
PAIR_TO_PAIR = torch.outer(SIGNS, SIGNS)
"""Weights from one such pair to the next, (2, 2)."""


def pair(number: int, start: int = 0) -> slice:
    """Return the units of a pair, given its number among the pairs that begin at unit `start`."""
    return slice(start + 2 * number, start + 2 * number + 2)


class Layer(NamedTuple):
    """Parameters of a convolution."""

    weight: Tensor
    """Kernel (out, in, k, k); (in, out, k, k) for a transposed convolution."""
    bias: Tensor
    """Bias (out,)."""

    @property
    def num_outputs(self) -> int:
        """Number of output channels."""
        return len(self.bias)


def layers_of(network: nn.Sequential) -> list[Layer]:
    """List the parameters of a network's convolutions, in order."""
    found = []
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            found.append(Layer(layer.weight, layer.bias))
    return found


class HeadLayout(NamedTuple):
    """Places of scales and means among the outputs of a head: K scales of each latent, then K means of each.

    With a mixture, logits follow; see `density_layout.DensityLayout`.
    """

    num_latents: int
    """M."""
    num_components: int
    """K."""
    has_means: bool

    @property
    def num_scales(self) -> int:
        """Number of scales, which come first."""
        return self.num_components * self.num_latents

    @property
    def scales_and_means(self) -> slice:
        """Places of all scales and means."""
        return slice(0, self.num_scales * (2 if self.has_means else 1))

    @property
    def first_means(self) -> slice:
        """Places of the means of the first component."""
        return slice(self.num_scales, self.num_scales + self.num_latents)

    def scales_of(self, channel: int) -> slice:
        """Return the places of the K scales of a latent."""
        return slice(channel, self.num_scales, self.num_latents)

    def means_of(self, channel: int) -> slice:
        """Return the places of the K means of a latent."""
        return slice(self.num_scales + channel, 2 * self.num_scales, self.num_latents)


def init_head(head: Layer, layout: HeadLayout, spread: LatentSpread) -> None:
    """Initialize a head to output the latents' scales, and means of zero, apart from small random terms."""
    repeats = layout.scales_and_means.stop // layout.num_latents
    factors = spread.scales.clamp(max=3.0).repeat(repeats)
    head.weight[layout.scales_and_means] *= NOISE * factors[:, None, None, None]
    head.bias[layout.scales_and_means] = 0
    head.bias[: layout.num_scales] = spread.scales.repeat(layout.num_components)
