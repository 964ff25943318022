"""Finds the layers of an entropy model's networks, and defines constants that several initializations share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

NOISE = 0.1
"""Factor on the random weights of the last layers, whose inputs are as large as latents instead of about one."""
MEAN_MAGNITUDE = 0.7
"""Approximate mean of |y| at a standard deviation of one: 0.71 for Laplacian and 0.80 for Gaussian latents."""
SIGNS = torch.tensor([1.0, -1.0])
"""Weights to or from a pair of units that carry v and -v, so that a signed value v passes through a LeakyReLU."""
SIGNED = torch.outer(SIGNS, SIGNS)
"""Weights from one such pair of units to the next, (2, 2)."""


class Outputs(NamedTuple):
    """Indices of the scales and means of a latent among the outputs of a network, for all components."""

    num_latents: int
    num_components: int
    has_means: bool

    @property
    def num_scales(self) -> int:
        """Number of scales, which come first; the means follow."""
        return self.num_components * self.num_latents

    def scales(self, channel: int) -> slice:
        """Return the indices of the scales of latent `channel`."""
        return slice(channel, self.num_scales, self.num_latents)

    def means(self, channel: int) -> slice:
        """Return the indices of the means of latent `channel`."""
        return slice(self.num_scales + channel, 2 * self.num_scales, self.num_latents)


class Layer(NamedTuple):
    """Parameters of a convolution."""

    weight: Tensor
    """Kernel (out, in, k, k); (in, out, k, k) for a transposed convolution."""
    bias: Tensor
    """Bias (out,)."""


def layers_of(network: nn.Sequential) -> list[Layer]:
    """List the parameters of a network's convolutions, in order."""
    found = []
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            found.append(Layer(layer.weight, layer.bias))
    return found


def init_head(head: Layer, outputs: Outputs, scales: Tensor) -> None:
    """Initialize a last layer so that it outputs `scales` (M,) and means of zero, apart from small random terms."""
    repeats = outputs.num_components * (2 if outputs.has_means else 1)
    scales_and_means = slice(0, repeats * outputs.num_latents)  # mixture logits follow
    head.weight[scales_and_means] *= NOISE * scales.clamp(max=3.0).repeat(repeats)[:, None, None, None]
    head.bias[scales_and_means] = 0
    head.bias[: outputs.num_scales] = scales.repeat(outputs.num_components)
