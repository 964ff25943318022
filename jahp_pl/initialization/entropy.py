"""Entropy models that start as plain estimators of each latent's mean and scale.

From random weights a short run spends its steps on finding what is known beforehand: a latent is likely to be as large
as those around it, and to be near their mean. What is written into the weights here is

- h_a: hyper-latents that are local energies, and, where the model has means, hyper-latents that are local means;
- h_s: scales that follow the interpolated energies, means that are the interpolated means;
- g_cm: features that are the left and the upper neighbour of each latent;
- g_ep: scales and means of h_s handed through, to which the neighbours' magnitudes and means are added.

Everything else keeps its random weights, and all of it learns. docs/study.md has what each part is worth.
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
"""Latents that vary less all round to zero; their scale starts here."""
MEAN_MAGNITUDE = 0.7
"""Mean of |y| for a standard deviation of one: 0.71 for Laplacian, 0.80 for Gaussian latents."""
HYPER_GAIN = 3.0
"""Hyper-latents per unit of local energy. Training makes cheap what does not pay."""
SMALLEST_HEARD = 0.2
"""Standard deviation from which on a latent's energy is heard; below it one latent in a hundred is not zero."""
LOCATED_SHARE = 1 / 6
"""Of the hyper-latents: means, each of which takes the room of two energies."""
ENERGY_SHARE = 0.7
"""How far a scale of h_s follows the local energy; the rest stays at the standard deviation over all images."""
MEAN_GAIN = 0.5
"""Hyper-latents per unit of a latent's local mean: rounded to steps of two latents, small beside their spread."""
NEIGHBOUR_SHARE = 0.3
"""Share of the neighbours' magnitude in a scale and of their mean in a mean, where there is a context."""
NOISE = 0.1
"""Of random weights in the last layers, whose inputs are as large as latents are, not of order one."""
SPLINE = torch.tensor([0.125, 0.5, 0.75, 0.5, 0.125])
"""Doubles the resolution smoothly; the taps of either phase add up to one."""
DOUBLING = torch.outer(SPLINE, SPLINE)
"""The same in two dimensions."""
SIGNS = torch.tensor([1.0, -1.0])
"""Of the two units that carry a signed value through an activation."""
STRAIGHT = torch.outer(SIGNS, SIGNS)
"""From such a pair of units to the next."""


@torch.no_grad()
def start_entropy_model(model: CompressionModel, std: Tensor) -> None:
    """Overwrite weights of h_a, h_s, g_cm, g_ep and of the prior, as far as the rung has them.

    Args:
        model: any rung.
        std: standard deviations of the latents, (M,).
    """
    scales = std.clamp(min=SMALLEST_STD)
    loudest: list[int] = std.argsort(descending=True, stable=True).tolist()
    has_means, num_components = model.density.has_means, model.config.num_components
    hyper_std, located = torch.ones(model.config.num_filters), []
    if model.h_a is not None and model.h_s is not None:
        # Beside a context psi is a first estimate of one scale and one mean; alone it has those of every component.
        outputs = Outputs(len(std), num_components if model.g_ep is None else 1, has_means)
        head = _layers(model.h_s)[-1]
        _start_head(head, outputs, scales)
        if has_means:
            # Random weights say noise of means; further components need it to differ.
            head.weight[outputs.num_scales :][: len(std)] = 0
            located = loudest[: min(round(LOCATED_SHARE * len(hyper_std)), len(_layers(model.h_s)[0].bias) // 2)]
        num_heard = max(int((std >= SMALLEST_HEARD).sum()), len(located))
        heard = _start_energies(model.h_a, scales, loudest[:num_heard], len(located))
        if has_means:
            gains = MEAN_GAIN * scales[located]
            _hear_means(model.h_a, gains, len(heard))
            _read_means(model.h_s, outputs, located, len(heard))
            hyper_std[len(heard) :][: len(located)] = gains
        _read_energies(model.h_s, outputs, scales, heard, 2 * len(located))
    if model.g_cm is not None and model.g_ep is not None:
        outputs = Outputs(len(std), num_components, has_means)
        _start_head(_layers(model.g_ep)[-1], outputs, scales)
        num_used = _hand_through(model.g_ep, outputs, located) if model.h_s is not None else 0
        _hear_neighbours(model.g_cm)
        _read_neighbours(model.g_ep, outputs, scales, loudest, num_used)
    if model.prior is not None:
        _start_prior(model.prior, hyper_std if model.h_a is not None else scales)


class Outputs(NamedTuple):
    """Which outputs of a network are the scales and the means of a latent, those of all components."""

    num_latents: int
    num_components: int
    has_means: bool

    @property
    def num_scales(self) -> int:
        """They come first, the means after them."""
        return self.num_components * self.num_latents

    def scales(self, channel: int) -> slice:
        """Of latent `channel`."""
        return slice(channel, self.num_scales, self.num_latents)

    def means(self, channel: int) -> slice:
        """Of latent `channel`."""
        return slice(self.num_scales + channel, 2 * self.num_scales, self.num_latents)


class Layer(NamedTuple):
    """Of a convolution, or of a transposed one, whose kernels are (in, out, k, k)."""

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
    """Let scales begin at `scales` and means at zero, but for what random weights add."""
    repeats = outputs.num_components * (2 if outputs.has_means else 1)
    located = slice(0, repeats * outputs.num_latents)
    head.weight[located] *= NOISE * scales.clamp(max=3.0).repeat(repeats)[:, None, None, None]
    head.bias[located] = 0
    head.bias[: outputs.num_scales] = scales.repeat(outputs.num_components)


# Side information -----------------------------------------------------------------------------------------------------


def _start_energies(h_a: HyperAnalysis, scales: Tensor, audible: list[int], num_located: int) -> list[list[int]]:
    """Let hyper-latents begin as local energies: means of |y| / scale over some 12 x 12 latents.

    From random weights a short run finds it late where h_a sees signed latents: their magnitude then takes two units,
    of y and of -y, behind LeakyReLUs.

    Args:
        h_a: of N units a layer.
        scales: what latents are divided by.
        audible: channels to hear, the loudest first.
        num_located: the first so many need an energy and a pair of units each, and leave room for as many means.

    Returns:
        Channels of y that each of the first hyper-latents hears.
    """
    first, second, last = _layers(h_a)
    first.weight.mul_(0.1)
    first.bias.zero_()
    second.weight.mul_(0.3)
    last.weight.mul_(0.3)
    heard = _shared(audible, len(first.bias) - 2 * num_located, num_located)
    # Where there are not two units for each, the positive half has to do: its mean is half that of the magnitude.
    num_pairs = 0 if h_a.magnitudes else min(len(heard), len(first.bias) - len(heard))
    for z, channels in enumerate(heard):
        units = slice(2 * z, 2 * z + 2) if z < num_pairs else slice(num_pairs + z, num_pairs + z + 1)
        is_half = not h_a.magnitudes and z >= num_pairs
        signs = SIGNS[: units.stop - units.start, None].expand(-1, len(channels))
        first.weight[units, channels, 1, 1] = signs / (scales[channels] * len(channels) ** 0.5)
        second.weight[z, units] = 0
        second.weight[z, units, 1:4, 1:4] = (2 if is_half else 1) / 9
        last.weight[z, z, 1:4, 1:4] += HYPER_GAIN / 9
    return heard


def _shared(channels: list[int], num_groups: int, num_single: int) -> list[list[int]]:
    """Divide all channels into groups: the first `num_single` of one each, the others as even as can be, small ones
    first. Latents that are about as loud are loud in the same places, so they may share an energy."""
    rest = channels[num_single:]
    num_shared = min(num_groups - num_single, len(rest))
    groups = [[channel] for channel in channels[:num_single]]
    for left in range(num_shared, 0, -1):
        size = len(rest) // left
        groups.append(rest[:size])
        rest = rest[size:]
    return groups


def _read_energies(
    h_s: HyperSynthesis, outputs: Outputs, scales: Tensor, heard: list[list[int]], num_used: int
) -> None:
    """Let scales follow the interpolated energies, in the units after the first `num_used`, half of those at most."""
    up1, up2, head = _layers(h_s)
    for z, channels in enumerate(heard[: (min(len(up1.bias), len(up2.bias)) - num_used) // 2]):
        unit = num_used + z
        for layer, below in ((up1, z), (up2, unit)):
            layer.weight[:, unit] = 0
            layer.weight[below, unit] = DOUBLING
            layer.bias[unit] = 0
        for channel in channels:
            share = ENERGY_SHARE * scales[channel]
            head.weight[outputs.scales(channel), unit, 1, 1] += share / (MEAN_MAGNITUDE * HYPER_GAIN)
            head.bias[outputs.scales(channel)] -= share


def _hear_means(h_a: HyperAnalysis, gains: Tensor, num_energies: int) -> None:
    """Let hyper-latents that carry no energy begin as local means of y, those of the channels that vary most.

    The lowest frequencies vary slowly: half of what they spread is known from such a mean. Each linear path goes
    through two units of every layer, of v and of -v, since their LeakyReLUs differ by v itself.

    Args:
        h_a: after `_start_energies`, whose first pairs of units hear the same channels.
        gains: hyper-latents per unit of each mean.
        num_energies: hyper-latents that are energies.
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
    """Let means mu of the channels `located` begin as those local means, interpolated."""
    up1, up2, head = _layers(h_s)
    for number, channel in enumerate(located):
        pair = slice(2 * number, 2 * number + 2)
        up1.weight[:, pair] = 0
        up1.weight[num_energies + number, pair] = SIGNS[:, None, None] * DOUBLING
        up2.weight[:, pair] = 0
        up2.weight[pair, pair] = STRAIGHT[:, :, None, None] * DOUBLING
        head.weight[outputs.means(channel), pair, 1, 1] += SIGNS / MEAN_GAIN


def _start_prior(prior: FactorizedDensity, std: Tensor) -> None:
    # Each of the layers shares in the slope of the logit; a logistic density of scale s has standard deviation 1.8 s.
    per_layer = (std / 1.8) ** (1 / len(prior.matrices))
    for matrix in prior.matrices:
        matrix.copy_(torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))[:, None, None].expand_as(matrix))


# Context --------------------------------------------------------------------------------------------------------------


def _hear_neighbours(g_cm: ContextPrediction) -> None:
    """Let phi begin as the left neighbour of every latent, then the upper one, beside what the random weights say."""
    channels = torch.arange(g_cm.in_channels)
    g_cm.weight[channels, channels, 2, 1] += 1
    g_cm.weight[len(channels) + channels, channels, 1, 2] += 1


def _hand_through(g_ep: EntropyParameterNetwork, outputs: Outputs, located: list[int]) -> int:
    """Let the scales of h_s, and its means of the channels `located`, pass g_ep as they are.

    Returns:
        How many units of each hidden layer are in use now. Means get no more than half of what the scales leave.
    """
    first, second, last = _layers(g_ep)
    num_latents = outputs.num_latents
    located = located[: (len(second.bias) - num_latents) // 4]
    num_used = num_latents + 2 * len(located)
    scales = torch.arange(num_latents)  # positive, so they pass a LeakyReLU in one unit
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
    g_ep: EntropyParameterNetwork, outputs: Outputs, scales: Tensor, loudest: list[int], num_used: int
) -> None:
    """Let scales and means follow the neighbours that `_hear_neighbours` made features, in units after the first
    `num_used`, half of those at most."""
    first, second, last = _layers(g_ep)
    num_latents = outputs.num_latents
    phi = first.weight.shape[1] - 2 * num_latents
    room = min((len(first.bias) - num_used) // 8, (len(second.bias) - num_used) // 6)
    for number, channel in enumerate(loudest[:room]):
        around = slice(num_used + 4 * number, num_used + 4 * number + 4)  # v and -v of either neighbour
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
