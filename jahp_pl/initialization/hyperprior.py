"""Initializes h_a and h_s so that hyper-latents are local energies and local means of the latents."""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.hyperprior import HyperAnalysis, HyperSynthesis
from jahp_pl.initialization.layers import MEAN_MAGNITUDE, SIGNED, SIGNS, Outputs, layers_of

HYPER_GAIN = 3.0
"""Factor from a local energy to its hyper-latent. Training lowers the rate of hyper-latents that save fewer bits
than they cost."""
ENERGY_SHARE = 0.7
"""Share of a scale of h_s that follows the local energy; the rest is the standard deviation over all images."""
MEAN_GAIN = 0.5
"""Factor from a latent's local mean to its hyper-latent. Rounding then has a step of 2 in units of the latent, which is
small compared to the latent's spread."""
SPLINE = torch.tensor([0.125, 0.5, 0.75, 0.5, 0.125])
"""Kernel that doubles the resolution smoothly; the taps of either phase sum to one."""
DOUBLING = torch.outer(SPLINE, SPLINE)
"""The same kernel in two dimensions."""


def init_energies(h_a: HyperAnalysis, scales: Tensor, by_std: list[int], num_means: int) -> list[list[int]]:
    """Initialize hyper-latents as local energies: means of |y| / scale over about 12 x 12 latents.

    From random weights, a short run learns this late if h_a reads signed latents, because a magnitude then needs two
    units with LeakyReLU, one for y and one for -y.

    Args:
        h_a: network with N units per layer.
        scales: divisors of the latents, (M,).
        by_std: channels of y to use, in order of decreasing standard deviation.
        num_means: number of channels, the first ones of `by_std`, that get an energy of their own, computed by a pair
            of units. The same number of hyper-latents is left for their means.

    Returns:
        For each of the first hyper-latents, the channels of y in its energy.
    """
    first, second, last = layers_of(h_a)
    first.weight.mul_(0.1)
    first.bias.zero_()
    second.weight.mul_(0.3)
    last.weight.mul_(0.3)
    groups = group_channels(by_std, len(first.bias) - 2 * num_means, num_means)
    # Without two units for a group, only the positive half of y is used, whose mean is half the mean magnitude.
    num_pairs = 0 if h_a.magnitudes else min(len(groups), len(first.bias) - len(groups))
    for z, channels in enumerate(groups):
        units = slice(2 * z, 2 * z + 2) if z < num_pairs else slice(num_pairs + z, num_pairs + z + 1)
        is_half = not h_a.magnitudes and z >= num_pairs
        signs = SIGNS[: units.stop - units.start, None].expand(-1, len(channels))
        first.weight[units, channels, 1, 1] = signs / (scales[channels] * len(channels) ** 0.5)
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
    h_s: HyperSynthesis, outputs: Outputs, scales: Tensor, groups: list[list[int]], num_used: int
) -> None:
    """Make scales follow the interpolated energies, in at most half of the units of h_s after the first `num_used`.

    Args:
        h_s: network to change.
        outputs: places of scales and means among its outputs.
        scales: initial scales, (M,).
        groups: for each energy, the channels of y in it, see `init_energies`.
        num_used: number of units in each hidden layer that are taken.
    """
    up1, up2, head = layers_of(h_s)
    for z, channels in enumerate(groups[: (min(len(up1.bias), len(up2.bias)) - num_used) // 2]):
        unit = num_used + z
        for layer, below in ((up1, z), (up2, unit)):
            layer.weight[:, unit] = 0
            layer.weight[below, unit] = DOUBLING
            layer.bias[unit] = 0
        for channel in channels:
            # sigma = scale (1 - s + s E / 0.7), with s = ENERGY_SHARE and E the local mean of |y| / scale, about 0.7.
            share = ENERGY_SHARE * scales[channel]
            head.weight[outputs.scales(channel), unit, 1, 1] += share / (MEAN_MAGNITUDE * HYPER_GAIN)
            head.bias[outputs.scales(channel)] -= share


def init_local_means(h_a: HyperAnalysis, gains: Tensor, num_energies: int) -> None:
    """Initialize the hyper-latents after the energies as local means of the channels of y that vary most.

    These channels hold the lowest frequencies, which vary slowly over the image, so a local mean explains half of their
    spread. Each linear path takes two units of every layer, for v and -v, because the difference of their LeakyReLUs is
    proportional to v.

    Args:
        h_a: network after `init_energies`, whose first pairs of units read the same channels.
        gains: factor from each local mean to its hyper-latent.
        num_energies: number of hyper-latents that are energies.
    """
    _, second, last = layers_of(h_a)
    for number, gain in enumerate(gains):
        pair = slice(2 * number, 2 * number + 2)
        free = slice(num_energies + pair.start, num_energies + pair.stop)
        second.weight[free] = 0
        second.weight[free, pair, 1:4, 1:4] = SIGNED[:, :, None, None] / 9
        last.weight[num_energies + number] = 0
        last.weight[num_energies + number, free, 1:4, 1:4] = gain * SIGNS[:, None, None] / 9


def read_means(h_s: HyperSynthesis, outputs: Outputs, channels: list[int], num_energies: int) -> None:
    """Initialize the means mu of `channels` of y as the interpolated hyper-latents of `init_local_means`.

    Args:
        h_s: network to change.
        outputs: places of scales and means among its outputs.
        channels: channels of y, in the order of their hyper-latents.
        num_energies: number of hyper-latents before the local means.
    """
    up1, up2, head = layers_of(h_s)
    for number, channel in enumerate(channels):
        pair = slice(2 * number, 2 * number + 2)
        up1.weight[:, pair] = 0
        up1.weight[num_energies + number, pair] = SIGNS[:, None, None] * DOUBLING
        up2.weight[:, pair] = 0
        up2.weight[pair, pair] = SIGNED[:, :, None, None] * DOUBLING
        head.weight[outputs.means(channel), pair, 1, 1] += SIGNS / MEAN_GAIN
