"""Initializes h_a and h_s so that hyper-latents are local energies and local means of the latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jahp_pl.hyperprior import HyperAnalysis, HyperSynthesis
from jahp_pl.initialization.building_blocks import PAIR_TO_PAIR, SIGNS, HeadLayout, layers_of, pair
from jahp_pl.initialization.latent_spread import MEAN_MAGNITUDE, LatentSpread

HYPER_GAIN = 3.0
"""Factor from a local energy to its hyper-latent. Training lowers the rate of hyper-latents that save fewer bits
than they cost."""
ENERGY_SHARE = 0.7
"""Share of a scale of h_s that follows the local energy; the rest is the standard deviation over all images."""
MEAN_GAIN = 0.5
"""Factor from a latent's local mean to its hyper-latent. Rounding then has a step of 2 in units of the latent, which is
small compared to the latent's spread."""
MEANS_SHARE = 1 / 6
"""Share of hyper-latents that are local means; each takes the room of two energies."""
SMALLEST_WITH_ENERGY = 0.2
"""Smallest standard deviation of latents that get an energy; below it, only one latent in a hundred is not zero."""
SPLINE = torch.tensor([0.125, 0.5, 0.75, 0.5, 0.125])
"""Kernel that doubles the resolution smoothly; the taps of either phase sum to one."""
DOUBLING = torch.outer(SPLINE, SPLINE)
"""The same kernel in two dimensions."""


class InitialHyperLatents(NamedTuple):
    """Meaning of the hyper-latents before training: energies first, then local means, then random features."""

    std: Tensor
    """(N,): standard deviation of each hyper-latent."""
    mean_channels: list[int]
    """Channels of y whose local means are hyper-latents."""


def init_hyper_transforms(
    h_a: HyperAnalysis, h_s: HyperSynthesis, layout: HeadLayout, spread: LatentSpread
) -> InitialHyperLatents:
    """Initialize h_a and h_s.

    Args:
        h_a: network to change.
        h_s: network to change, after `init_head`.
        layout: places of scales and means among the outputs of h_s.
        spread: statistics of the latents.
    """
    up, _, head = layers_of(h_s)
    std = torch.ones(layers_of(h_a)[-1].num_outputs)
    mean_channels: list[int] = []
    if layout.has_means:
        # Random weights would add noise to the means. Only the first component is reset because the others must differ.
        head.weight[layout.first_means] = 0
        mean_channels = spread.channels[: min(round(MEANS_SHARE * len(std)), up.num_outputs // 2)]
    groups = init_energies(h_a, spread, len(mean_channels))
    if layout.has_means:
        gains = MEAN_GAIN * spread.scales[mean_channels]
        init_local_means(h_a, gains, len(groups))
        read_means(h_s, layout, mean_channels, len(groups))
        std[len(groups) : len(groups) + len(gains)] = gains
    read_energies(h_s, layout, spread, groups, 2 * len(mean_channels))
    return InitialHyperLatents(std, mean_channels)


def init_energies(h_a: HyperAnalysis, spread: LatentSpread, num_means: int) -> list[list[int]]:
    """Initialize hyper-latents as local energies: means of |y| / scale over about 12 x 12 latents.

    From random weights, a short run learns this late if h_a reads signed latents, because a magnitude then needs two
    units with LeakyReLU, one for y and one for -y.

    Args:
        h_a: network with N units per layer.
        spread: statistics of the latents.
        num_means: number of channels, those that vary most, that get an energy of their own, computed by a pair of
            units. The same number of hyper-latents is left for their means.

    Returns:
        For each of the first hyper-latents, the channels of y in its energy.
    """
    first, second, last = layers_of(h_a)
    first.weight.mul_(0.1)
    first.bias.zero_()
    second.weight.mul_(0.3)
    last.weight.mul_(0.3)
    channels_with_energy = spread.channels[: max(spread.num_above(SMALLEST_WITH_ENERGY), num_means)]
    groups = group_channels(channels_with_energy, first.num_outputs - 2 * num_means, num_means)
    # Without two units for a group, only the positive half of y is used, whose mean is half the mean magnitude.
    num_pairs = 0 if h_a.magnitudes else min(len(groups), first.num_outputs - len(groups))
    for z, channels in enumerate(groups):
        units = pair(z) if z < num_pairs else slice(num_pairs + z, num_pairs + z + 1)
        is_half = not h_a.magnitudes and z >= num_pairs
        signs = SIGNS[: units.stop - units.start, None].expand(-1, len(channels))
        first.weight[units, channels, 1, 1] = signs / (spread.scales[channels] * len(channels) ** 0.5)
        second.weight[z, units] = 0
        second.weight[z, units, 1:4, 1:4] = (2 if is_half else 1) / 9
        last.weight[z, z, 1:4, 1:4] += HYPER_GAIN / 9
    return groups


def group_channels(channels: list[int], num_groups: int, num_single: int) -> list[list[int]]:
    """Divide channels into groups: the first `num_single` alone, the others into groups of similar size, small first.

    Latents of similar standard deviation are large in the same places, so they can share an energy.
    """
    rest = channels[num_single:]
    num_shared = min(num_groups - num_single, len(rest))
    groups = [[channel] for channel in channels[:num_single]]
    for left in range(num_shared, 0, -1):
        size = len(rest) // left
        groups.append(rest[:size])
        rest = rest[size:]
    return groups


def read_energies(
    h_s: HyperSynthesis, layout: HeadLayout, spread: LatentSpread, groups: list[list[int]], num_used: int
) -> None:
    """Make scales follow the interpolated energies, in at most half of the units of h_s after the first `num_used`.

    With s = `ENERGY_SHARE` and E the local mean of |y| / scale, which is about `MEAN_MAGNITUDE`:

        sigma = scale (1 - s + s E / MEAN_MAGNITUDE)

    Args:
        h_s: network to change.
        layout: places of scales and means among its outputs.
        spread: statistics of the latents.
        groups: for each energy, the channels of y in it, see `init_energies`.
        num_used: number of units in each hidden layer that are taken.
    """
    up1, up2, head = layers_of(h_s)
    room = (min(up1.num_outputs, up2.num_outputs) - num_used) // 2
    for z, channels in enumerate(groups[:room]):
        unit = num_used + z
        for layer, below in ((up1, z), (up2, unit)):
            layer.weight[:, unit] = 0
            layer.weight[below, unit] = DOUBLING
            layer.bias[unit] = 0
        for channel in channels:
            varying = ENERGY_SHARE * spread.scales[channel]
            head.weight[layout.scales_of(channel), unit, 1, 1] += varying / (MEAN_MAGNITUDE * HYPER_GAIN)
            head.bias[layout.scales_of(channel)] -= varying


def init_local_means(h_a: HyperAnalysis, gains: Tensor, num_energies: int) -> None:
    """Initialize the hyper-latents after the energies as local means of the channels of y that vary most.

    These channels hold the lowest frequencies, which vary slowly over the image, so a local mean explains half of their
    spread. Each linear path takes a pair of units in every layer.

    Args:
        h_a: network after `init_energies`, whose first pairs of units read the same channels.
        gains: factor from each local mean to its hyper-latent.
        num_energies: number of hyper-latents that are energies.
    """
    _, second, last = layers_of(h_a)
    for number, gain in enumerate(gains):
        free = pair(number, num_energies)
        second.weight[free] = 0
        second.weight[free, pair(number), 1:4, 1:4] = PAIR_TO_PAIR[:, :, None, None] / 9
        last.weight[num_energies + number] = 0
        last.weight[num_energies + number, free, 1:4, 1:4] = gain * SIGNS[:, None, None] / 9


def read_means(h_s: HyperSynthesis, layout: HeadLayout, channels: list[int], num_energies: int) -> None:
    """Initialize the means mu of `channels` of y as the interpolated hyper-latents of `init_local_means`.

    Args:
        h_s: network to change.
        layout: places of scales and means among its outputs.
        channels: channels of y, in the order of their hyper-latents.
        num_energies: number of hyper-latents before the local means.
    """
    up1, up2, head = layers_of(h_s)
    for number, channel in enumerate(channels):
        units = pair(number)
        up1.weight[:, units] = 0
        up1.weight[num_energies + number, units] = SIGNS[:, None, None] * DOUBLING
        up2.weight[:, units] = 0
        up2.weight[units, units] = PAIR_TO_PAIR[:, :, None, None] * DOUBLING
        head.weight[layout.means_of(channel), units, 1, 1] += SIGNS / MEAN_GAIN
