"""Initializes g_cm and g_ep so that each latent is predicted from two neighbors and the hyperprior."""

from __future__ import annotations

import torch

from jahp_pl.context import ContextPrediction, EntropyParameterNetwork
from jahp_pl.initialization.building_blocks import PAIR_TO_PAIR, SIGNS, HeadLayout, layers_of, pair
from jahp_pl.initialization.latent_spread import MEAN_MAGNITUDE, LatentSpread

NEIGHBOR_SHARE = 0.3
"""Weight of the neighbors' magnitude in a latent's scale, and of the neighbors' mean in its mean."""


def init_neighbors(g_cm: ContextPrediction) -> None:
    """Initialize the first 2M features phi as each latent's left neighbors, then its upper ones, plus random terms."""
    channels = torch.arange(g_cm.in_channels)
    g_cm.weight[channels, channels, 2, 1] += 1
    g_cm.weight[len(channels) + channels, channels, 1, 2] += 1


def pass_psi(g_ep: EntropyParameterNetwork, layout: HeadLayout, channels: list[int]) -> int:
    """Let g_ep pass through the scales in psi, and the means of as many of `channels` as there is room for.

    Args:
        g_ep: network to change, whose first inputs are psi: one scale and one mean of each latent.
        layout: places of scales and means among its outputs.
        channels: channels of y, in order of decreasing standard deviation.

    Returns:
        Number of units that this takes in each hidden layer. The means get at most half of the units that the scales
        leave.
    """
    first, second, head = layers_of(g_ep)
    num_latents = layout.num_latents
    channels = channels[: (second.num_outputs - num_latents) // 4]
    num_used = num_latents + 2 * len(channels)
    scales = torch.arange(num_latents)  # positive, so one unit passes them through a LeakyReLU
    for layer in (first, second):
        layer.weight[:num_used] = 0
        layer.bias[:num_used] = 0
        layer.weight[scales, scales] = 1
    head.bias[: layout.num_scales] = 0
    for channel in range(num_latents):
        head.weight[layout.scales_of(channel), channel] = 1
    for number, channel in enumerate(channels):
        units = pair(number, num_latents)
        first.weight[units, num_latents + channel] = SIGNS[:, None, None]
        second.weight[units, units] = PAIR_TO_PAIR[:, :, None, None]
        head.weight[layout.means_of(channel), units] = SIGNS[:, None, None]
    return num_used


def read_neighbors(g_ep: EntropyParameterNetwork, layout: HeadLayout, spread: LatentSpread, num_used: int) -> None:
    """Add the neighbors from `init_neighbors` to scales and means, in the hidden units after the first `num_used`.

    For the channels that vary most, with m the mean of |neighbors|, v the mean of the neighbors and
    s = `NEIGHBOR_SHARE`:

        sigma += s (m - MEAN_MAGNITUDE scale)
        mu += s v

    Args:
        g_ep: network to change.
        layout: places of scales and means among its outputs.
        spread: statistics of the latents.
        num_used: number of units in each hidden layer that are taken, see `pass_psi`.
    """
    first, second, head = layers_of(g_ep)
    scales, num_latents = spread.scales, layout.num_latents
    left = first.weight.shape[1] - 2 * num_latents  # the last inputs are phi
    up = left + num_latents
    room = min((first.num_outputs - num_used) // 8, (second.num_outputs - num_used) // 6)
    for number, channel in enumerate(spread.channels[:room]):
        pairs = slice(num_used + 4 * number, num_used + 4 * number + 4)  # one of each neighbor
        magnitude = num_used + 3 * number
        mean = slice(magnitude + 1, magnitude + 3)
        first.weight[pairs] = 0
        first.bias[pairs] = 0
        first.weight[pair(0, pairs.start), left + channel, 0, 0] = SIGNS
        first.weight[pair(1, pairs.start), up + channel, 0, 0] = SIGNS
        second.weight[magnitude : mean.stop] = 0
        second.bias[magnitude : mean.stop] = 0
        second.weight[magnitude, pairs] = 0.5
        second.weight[mean, pairs, 0, 0] = 0.5 * PAIR_TO_PAIR.repeat(1, 2)
        head.weight[layout.scales_of(channel), magnitude] += NEIGHBOR_SHARE
        head.bias[layout.scales_of(channel)] -= NEIGHBOR_SHARE * MEAN_MAGNITUDE * scales[channel]
        head.weight[layout.means_of(channel), mean, 0, 0] += NEIGHBOR_SHARE * SIGNS
