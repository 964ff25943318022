"""Initializes g_cm and g_ep so that each latent is predicted from two neighbors and the hyperprior."""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.context import ContextPrediction, EntropyParameterNetwork
from jahp_pl.initialization.layers import MEAN_MAGNITUDE, SIGNED, SIGNS, Outputs, layers_of

NEIGHBOR_SHARE = 0.3
"""Weight of the neighbors' magnitude in a latent's scale, and of the neighbors' mean in its mean."""


def init_neighbors(g_cm: ContextPrediction) -> None:
    """Initialize the first 2M features phi as each latent's left neighbors, then its upper ones, plus random terms."""
    channels = torch.arange(g_cm.in_channels)
    g_cm.weight[channels, channels, 2, 1] += 1
    g_cm.weight[len(channels) + channels, channels, 1, 2] += 1


def pass_through(g_ep: EntropyParameterNetwork, outputs: Outputs, channels: list[int]) -> int:
    """Let g_ep pass on the scales from h_s, and the means of as many of `channels` as there is room for, unchanged.

    Returns:
        Number of units that this takes in each hidden layer. The means get at most half of the units that the scales
        leave.
    """
    first, second, last = layers_of(g_ep)
    num_latents = outputs.num_latents
    channels = channels[: (len(second.bias) - num_latents) // 4]
    num_used = num_latents + 2 * len(channels)
    scales = torch.arange(num_latents)  # positive, so one unit passes them through a LeakyReLU
    for layer in (first, second):
        layer.weight[:num_used] = 0
        layer.bias[:num_used] = 0
        layer.weight[scales, scales] = 1
    last.bias[: outputs.num_scales] = 0
    for channel in range(num_latents):
        last.weight[outputs.scales(channel), channel] = 1
    for number, channel in enumerate(channels):
        pair = slice(num_latents + 2 * number, num_latents + 2 * number + 2)
        first.weight[pair, num_latents + channel] = SIGNS[:, None, None]
        second.weight[pair, pair] = SIGNED[:, :, None, None]
        last.weight[outputs.means(channel), pair] = SIGNS[:, None, None]
    return num_used


def read_neighbors(
    g_ep: EntropyParameterNetwork, outputs: Outputs, scales: Tensor, by_std: list[int], num_used: int
) -> None:
    """Add the neighbors from `init_neighbors` to scales and means, in the hidden units after the first `num_used`.

    Args:
        g_ep: network to change.
        outputs: places of scales and means among its outputs.
        scales: initial scales, (M,).
        by_std: channels of y, in order of decreasing standard deviation; only the first are used if room is short.
        num_used: number of units in each hidden layer that are taken, see `pass_through`.
    """
    first, second, last = layers_of(g_ep)
    num_latents = outputs.num_latents
    phi = first.weight.shape[1] - 2 * num_latents
    room = min((len(first.bias) - num_used) // 8, (len(second.bias) - num_used) // 6)
    for number, channel in enumerate(by_std[:room]):
        around = slice(num_used + 4 * number, num_used + 4 * number + 4)  # v and -v of each neighbor
        size, mean = num_used + 3 * number, slice(num_used + 3 * number + 1, num_used + 3 * number + 3)
        first.weight[around] = 0
        first.bias[around] = 0
        first.weight[around.start : around.start + 2, phi + channel, 0, 0] = SIGNS
        first.weight[around.start + 2 : around.stop, phi + num_latents + channel, 0, 0] = SIGNS
        second.weight[size : mean.stop] = 0
        second.bias[size : mean.stop] = 0
        second.weight[size, around] = 0.5
        second.weight[mean, around, 0, 0] = 0.5 * SIGNED.repeat(1, 2)
        # sigma += s (m - 0.7 scale) and mu += s v, with m the mean of |neighbors|, v their mean, s = NEIGHBOR_SHARE.
        last.weight[outputs.scales(channel), size] += NEIGHBOR_SHARE
        last.bias[outputs.scales(channel)] -= NEIGHBOR_SHARE * MEAN_MAGNITUDE * scales[channel]
        last.weight[outputs.means(channel), mean, 0, 0] += NEIGHBOR_SHARE * SIGNS
