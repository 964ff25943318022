"""Initialises the entropy model as simple estimators of each latent's mean and scale.

From random weights, a short run spends its steps on learning what is known in advance: a latent probably has a
magnitude similar to that of its surroundings, and a value near their mean. The weights are therefore set as follows:

- h_a: hyper-latents are local energies and, if the model has means, local means;
- h_s: scales follow the interpolated energies, means are the interpolated local means;
- g_cm: features are the left and the upper neighbour of each latent;
- g_ep: scales and means of h_s pass through, plus the magnitudes and means of the neighbours.

All other weights stay random, and all weights are trained. docs/study.md shows the effect of each part.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jahp_pl.context import ContextPrediction, EntropyParameterNetwork
from jahp_pl.entropy_model import FactorizedDensity
from jahp_pl.hyperprior import HyperAnalysis, HyperSynthesis
from jahp_pl.model import CompressionModel

SMALLEST_STD = 0.3
"""Smallest initial scale; latents that vary less than this all round to zero."""
MEAN_MAGNITUDE = 0.7
"""Mean of |y| for a standard deviation of one: 0.71 for Laplacian, 0.80 for Gaussian latents."""
HYPER_GAIN = 3.0
"""Hyper-latents per unit of local energy. Training lowers the rate of those that are not worth it."""
SMALLEST_WEIGHTED = 0.2
"""Smallest standard deviation of latents that get an energy; below it, one latent in a hundred is not zero."""
LOCATED_SHARE = 1 / 6
"""Share of hyper-latents that are means; each takes the room of two energies."""
ENERGY_SHARE = 0.7
"""How far a scale of h_s follows the local energy; the rest stays at the standard deviation over all images."""
MEAN_GAIN = 0.5
"""Hyper-latents per unit of a latent's local mean: rounded in steps of two latents, which is small compared to their
spread."""
NEIGHBOUR_SHARE = 0.3
"""Share of the neighbours' magnitude in a scale, and of their mean in a mean, if there is a context model."""
NOISE = 0.1
"""Factor of random weights in the last layers, whose inputs are as large as latents instead of about one."""
SPLINE = torch.tensor([0.125, 0.5, 0.75, 0.5, 0.125])
"""Kernel that doubles the resolution smoothly; the taps of either phase sum to one."""
DOUBLING = torch.outer(SPLINE, SPLINE)
"""The same kernel in two dimensions."""
SIGNS = torch.tensor([1.0, -1.0])
"""Signs of the two units that pass a signed value through an activation."""
STRAIGHT = torch.outer(SIGNS, SIGNS)
"""Weights from one such pair of units to the next."""


@torch.no_grad()
def start_entropy_model(model: CompressionModel, std: Tensor) -> None:
    """Overwrite weights of h_a, h_s, g_cm, g_ep and the prior, where the rung has them.

    Args:
        model: model of any rung.
        std: standard deviations of the latents, (M,).
    """
    scales = std.clamp(min=SMALLEST_STD)
    by_std: list[int] = std.argsort(descending=True, stable=True).tolist()
    has_means, num_components = model.density.has_means, model.config.num_components
    hyper_std, located = torch.ones(model.config.num_filters), []
    if model.h_a is not None and model.h_s is not None:
        # With a context model, psi is a first estimate of one scale and one mean; otherwise it has those of all
        # components.
        outputs = Outputs(len(std), num_components if model.g_ep is None else 1, has_means)
        head = _layers(model.h_s)[-1]
        _start_head(head, outputs, scales)
        if has_means:
            # Random weights would add noise to the means; only the first component is reset, because the others must
            # differ.
            head.weight[outputs.num_scales :][: len(std)] = 0
            located = by_std[: min(round(LOCATED_SHARE * len(hyper_std)), len(_layers(model.h_s)[0].bias) // 2)]
        num_weighted = max(int((std >= SMALLEST_WEIGHTED).sum()), len(located))
        grouped = _start_energies(model.h_a, scales, by_std[:num_weighted], len(located))
        if has_means:
            gains = MEAN_GAIN * scales[located]
            _start_local_means(model.h_a, gains, len(grouped))
            _read_means(model.h_s, outputs, located, len(grouped))
            hyper_std[len(grouped) :][: len(located)] = gains
        _read_energies(model.h_s, outputs, scales, grouped, 2 * len(located))
    if model.g_cm is not None and model.g_ep is not None:
        outputs = Outputs(len(std), num_components, has_means)
        _start_head(_layers(model.g_ep)[-1], outputs, scales)
        num_used = _pass_through(model.g_ep, outputs, located) if model.h_s is not None else 0
        _start_neighbours(model.g_cm)
        _read_neighbours(model.g_ep, outputs, scales, by_std, num_used)
    if model.prior is not None:
        _start_prior(model.prior, hyper_std if model.h_a is not None else scales)


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
    """Parameters of a convolution, or of a transposed one, whose kernels are (in, out, k, k)."""

    weight: Tensor
    bias: Tensor


def _layers(network: nn.Sequential) -> list[Layer]:
    found = []
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            found.append(Layer(layer.weight, layer.bias))
    return found


def _start_head(head: Layer, outputs: Outputs, scales: Tensor) -> None:
    """Initialise scales at `scales` and means at zero, apart from small random weights."""
    repeats = outputs.num_components * (2 if outputs.has_means else 1)
    located = slice(0, repeats * outputs.num_latents)
    head.weight[located] *= NOISE * scales.clamp(max=3.0).repeat(repeats)[:, None, None, None]
    head.bias[located] = 0
    head.bias[: outputs.num_scales] = scales.repeat(outputs.num_components)


# Side information -----------------------------------------------------------------------------------------------------


def _start_energies(h_a: HyperAnalysis, scales: Tensor, by_std: list[int], num_located: int) -> list[list[int]]:
    """Initialise hyper-latents as local energies: means of |y| / scale over about 12 x 12 latents.

    From random weights, a short run learns this late if h_a reads signed latents, because the magnitude then takes two
    units, for y and -y, after LeakyReLUs.

    Args:
        h_a: network with N units per layer.
        scales: divisors of the latents.
        by_std: channels to use, in order of decreasing standard deviation.
        num_located: number of first channels that get their own energy with a pair of units, and leave room for as many
            means.

    Returns:
        Channels of y that enter each of the first hyper-latents.
    """
    first, second, last = _layers(h_a)
    first.weight.mul_(0.1)
    first.bias.zero_()
    second.weight.mul_(0.3)
    last.weight.mul_(0.3)
    grouped = _group(by_std, len(first.bias) - 2 * num_located, num_located)
    # If there are not two units for each, only the positive half is used, whose mean is half that of the magnitude.
    num_pairs = 0 if h_a.magnitudes else min(len(grouped), len(first.bias) - len(grouped))
    for z, channels in enumerate(grouped):
        units = slice(2 * z, 2 * z + 2) if z < num_pairs else slice(num_pairs + z, num_pairs + z + 1)
        is_half = not h_a.magnitudes and z >= num_pairs
        signs = SIGNS[: units.stop - units.start, None].expand(-1, len(channels))
        first.weight[units, channels, 1, 1] = signs / (scales[channels] * len(channels) ** 0.5)
        second.weight[z, units] = 0
        second.weight[z, units, 1:4, 1:4] = (2 if is_half else 1) / 9
        last.weight[z, z, 1:4, 1:4] += HYPER_GAIN / 9
    return grouped


def _group(channels: list[int], num_groups: int, num_single: int) -> list[list[int]]:
    """Divide the channels into groups: the first `num_single` separately, the others evenly, small groups first.

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


def _read_energies(
    h_s: HyperSynthesis, outputs: Outputs, scales: Tensor, grouped: list[list[int]], num_used: int
) -> None:
    """Let scales follow the interpolated energies, in the units after the first `num_used`, at most half of them."""
    up1, up2, head = _layers(h_s)
    for z, channels in enumerate(grouped[: (min(len(up1.bias), len(up2.bias)) - num_used) // 2]):
        unit = num_used + z
        for layer, below in ((up1, z), (up2, unit)):
            layer.weight[:, unit] = 0
            layer.weight[below, unit] = DOUBLING
            layer.bias[unit] = 0
        for channel in channels:
            share = ENERGY_SHARE * scales[channel]
            head.weight[outputs.scales(channel), unit, 1, 1] += share / (MEAN_MAGNITUDE * HYPER_GAIN)
            head.bias[outputs.scales(channel)] -= share


def _start_local_means(h_a: HyperAnalysis, gains: Tensor, num_energies: int) -> None:
    """Initialise hyper-latents that are no energies as local means of the channels of y that vary most.

    The lowest frequencies vary slowly, and such a mean explains half of their spread. Each linear path uses two units
    of every layer, for v and -v, because the difference of their LeakyReLUs is proportional to v.

    Args:
        h_a: network after `_start_energies`, whose first pairs of units read the same channels.
        gains: hyper-latents per unit of each mean.
        num_energies: number of hyper-latents that are energies.
    """
    _, second, last = _layers(h_a)
    for number, gain in enumerate(gains):
        pair = slice(2 * number, 2 * number + 2)
        free = slice(num_energies + pair.start, num_energies + pair.stop)
        second.weight[free] = 0
        second.weight[free, pair, 1:4, 1:4] = STRAIGHT[:, :, None, None] / 9
        last.weight[num_energies + number] = 0
        last.weight[num_energies + number, free, 1:4, 1:4] = gain * SIGNS[:, None, None] / 9


def _read_means(h_s: HyperSynthesis, outputs: Outputs, located: list[int], num_energies: int) -> None:
    """Initialise the means mu of the channels `located` as those local means, interpolated."""
    up1, up2, head = _layers(h_s)
    for number, channel in enumerate(located):
        pair = slice(2 * number, 2 * number + 2)
        up1.weight[:, pair] = 0
        up1.weight[num_energies + number, pair] = SIGNS[:, None, None] * DOUBLING
        up2.weight[:, pair] = 0
        up2.weight[pair, pair] = STRAIGHT[:, :, None, None] * DOUBLING
        head.weight[outputs.means(channel), pair, 1, 1] += SIGNS / MEAN_GAIN


def _start_prior(prior: FactorizedDensity, std: Tensor) -> None:
    # All layers share in the slope of the logit; a logistic density of scale s has standard deviation 1.8 s.
    per_layer = (std / 1.8) ** (1 / len(prior.matrices))
    for matrix in prior.matrices:
        matrix.copy_(torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))[:, None, None].expand_as(matrix))


# Context --------------------------------------------------------------------------------------------------------------


def _start_neighbours(g_cm: ContextPrediction) -> None:
    """Initialise phi as the left neighbour of every latent, then the upper one, plus the random weights."""
    channels = torch.arange(g_cm.in_channels)
    g_cm.weight[channels, channels, 2, 1] += 1
    g_cm.weight[len(channels) + channels, channels, 1, 2] += 1


def _pass_through(g_ep: EntropyParameterNetwork, outputs: Outputs, located: list[int]) -> int:
    """Pass the scales of h_s, and its means of the channels `located`, through g_ep unchanged.

    Returns:
        Number of units of each hidden layer that are used. Means get at most half of what the scales leave.
    """
    first, second, last = _layers(g_ep)
    num_latents = outputs.num_latents
    located = located[: (len(second.bias) - num_latents) // 4]
    num_used = num_latents + 2 * len(located)
    scales = torch.arange(num_latents)  # positive, so one unit passes them through a LeakyReLU
    for layer in (first, second):
        layer.weight[:num_used] = 0
        layer.bias[:num_used] = 0
        layer.weight[scales, scales] = 1
    last.bias[: outputs.num_scales] = 0
    for channel in range(num_latents):
        last.weight[outputs.scales(channel), channel] = 1
    for number, channel in enumerate(located):
        pair = slice(num_latents + 2 * number, num_latents + 2 * number + 2)
        first.weight[pair, num_latents + channel] = SIGNS[:, None, None]
        second.weight[pair, pair] = STRAIGHT[:, :, None, None]
        last.weight[outputs.means(channel), pair] = SIGNS[:, None, None]
    return num_used


def _read_neighbours(
    g_ep: EntropyParameterNetwork, outputs: Outputs, scales: Tensor, by_std: list[int], num_used: int
) -> None:
    """Let scales and means follow the neighbours from `_start_neighbours`, in units after the first `num_used`."""
    first, second, last = _layers(g_ep)
    num_latents = outputs.num_latents
    phi = first.weight.shape[1] - 2 * num_latents
    room = min((len(first.bias) - num_used) // 8, (len(second.bias) - num_used) // 6)
    for number, channel in enumerate(by_std[:room]):
        around = slice(num_used + 4 * number, num_used + 4 * number + 4)  # v and -v of each neighbour
        size, mean = num_used + 3 * number, slice(num_used + 3 * number + 1, num_used + 3 * number + 3)
        first.weight[around] = 0
        first.bias[around] = 0
        first.weight[around.start : around.start + 2, phi + channel, 0, 0] = SIGNS
        first.weight[around.start + 2 : around.stop, phi + num_latents + channel, 0, 0] = SIGNS
        second.weight[size : mean.stop] = 0
        second.bias[size : mean.stop] = 0
        second.weight[size, around] = 0.5
        second.weight[mean, around, 0, 0] = 0.5 * STRAIGHT.repeat(1, 2)
        last.weight[outputs.scales(channel), size] += NEIGHBOUR_SHARE
        last.bias[outputs.scales(channel)] -= NEIGHBOUR_SHARE * MEAN_MAGNITUDE * scales[channel]
        last.weight[outputs.means(channel), mean, 0, 0] += NEIGHBOUR_SHARE * SIGNS
