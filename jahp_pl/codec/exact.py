"""The entropy-parameter networks in exact arithmetic: h_s, g_cm and g_ep on integers carried by float64.

A range decoder must see the encoder's probabilities to the last bit, and float convolutions do not give them: the order
of summation, hence the result, depends on the shape of the batch, the number of threads, the library and the machine.
Here weights are rounded to a grid 2^-w and activations to a grid 2^-12, and both are stored as the integers that count
grid steps. Every product and every partial sum is then an integer, and float64 holds integers exactly below 2^53. What
happens between two layers (scale, LeakyReLU, round, clamp) is elementwise, for which IEEE 754 prescribes the result.

Guarantees: for equal integer inputs the outputs are equal to the last bit, whatever the batch, order, thread count,
instruction set or device, because |weights| times the clamp of the inputs, summed per output channel, is shown to stay
below 2^53 when the model is frozen; `FreezeError` where it cannot be shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.context import ContextPrediction, EntropyParameterNetwork
from jahp_pl.hyperprior import HyperSynthesis

WEIGHT_BITS = 16
FRACTION_BITS = 12
"""Activations are multiples of 2^-12."""
LATENT_CLAMP = 2**12
"""Latents and hyper-latents enter the networks clamped to +-this; they are integers, of fraction 0."""
ACTIVATION_CLAMP = 2**24
"""In grid steps: activations are clamped to +-4096."""
EXACT_BOUND = 2**53
"""float64 holds every integer up to here."""


class FreezeError(ValueError):
    """A model whose arithmetic cannot be shown to be exact; the message names the layer."""


class Activation(NamedTuple):
    """Slope below zero of the nonlinearity after a layer: 1 for none, 0 for ReLU."""

    slope: float

    def __call__(self, accumulator: Tensor, shift: int) -> Tensor:
        """Accumulated sums in steps of 2^-(shift + FRACTION_BITS) -> activations in steps of 2^-FRACTION_BITS."""
        if self.slope != 1.0:
            accumulator = torch.where(accumulator >= 0, accumulator, accumulator * self.slope)
        return torch.round(accumulator * 2.0**-shift).clamp_(-ACTIVATION_CLAMP, ACTIVATION_CLAMP)


class FixedPointLayer(NamedTuple):
    """One linear layer as integers: accumulator = weight (*) input + bias, then the activation."""

    weight: Tensor
    """Shape of the original layer, float64, integers: steps of 2^-weight_fraction."""
    bias: Tensor
    """(out,), float64, integers: steps of 2^-(weight_fraction + input_fraction)."""
    shift: int
    """Right shift that brings the accumulator to steps of 2^-FRACTION_BITS."""
    activation: Activation


def freeze_layer(
    name: str, layer: nn.Conv2d | nn.ConvTranspose2d, slope: float, input_fraction: int, weight: Tensor | None = None
) -> FixedPointLayer:
    """Round a layer to the grid and prove its bound.

    Args:
        name: for the error message.
        layer: trained layer.
        slope: of the nonlinearity behind it; 1 for none.
        input_fraction: 0 for (hyper-)latents, FRACTION_BITS behind another layer.
        weight: used in place of layer.weight (a masked one).

    Raises:
        FreezeError: not finite, or too large for the bound.
    """
    assert layer.bias is not None
    weight = (layer.weight if weight is None else weight).detach().cpu().double()
    bias = layer.bias.detach().cpu().double()
    largest = float(weight.abs().max())
    if not (math.isfinite(largest) and bool(torch.isfinite(bias).all())):
        raise FreezeError(f"{name}: has weights that are not finite; train again from an earlier checkpoint")
    # frexp(m 2^e) with m in [1/2, 1): the largest weight fills WEIGHT_BITS bits including its sign. A layer of zeros
    # takes any grid; the limit keeps a layer of tiny weights from moving the bias off float64's integers.
    weight_fraction = min(WEIGHT_BITS - 1 - math.frexp(largest)[1], 2 * WEIGHT_BITS)
    weight = torch.round(weight * 2.0**weight_fraction)
    bias = torch.round(bias * 2.0 ** (weight_fraction + input_fraction))

    clamp = ACTIVATION_CLAMP if input_fraction else LATENT_CLAMP
    out_dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    per_output = weight.abs().transpose(0, out_dim).flatten(1).sum(1) * clamp + bias.abs()
    if float(per_output.max()) >= EXACT_BOUND:
        channel = int(per_output.argmax())
        raise FreezeError(
            f"{name}: output channel {channel} can reach {float(per_output.max()):.2e} grid steps, more than the 2^53 "
            "that stay exact; its weights have grown out of proportion"
        )
    return FixedPointLayer(weight, bias, weight_fraction + input_fraction - FRACTION_BITS, Activation(slope))


class ExactHyperSynthesis:
    """h_s on integers: z_hat -> psi for the whole frame.

    Args:
        network: trained h_s.

    Raises:
        FreezeError: see `freeze_layer`.
    """

    def __init__(self, network: HyperSynthesis) -> None:
        self.layers = _freeze_sequence("h_s", network, input_fraction=0)

    def __call__(self, z_hat: Tensor, height: int, width: int) -> Tensor:
        """(N, hz, wz) integers -> (height * width, F) float64, steps of 2^-12, positions in raster order."""
        x = z_hat.double().clamp(-LATENT_CLAMP, LATENT_CLAMP).unsqueeze(0)
        for layer in self.layers[:-1]:
            x = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=2, output_padding=1)
            x = layer.activation(x, layer.shift)
        last = self.layers[-1]
        x = last.activation(F.conv2d(x, last.weight, last.bias, padding=1), last.shift)
        return x[0, :, :height, :width].flatten(1).T.contiguous()

    def tensors(self) -> Iterator[Tensor]:
        """All that determines the output, for the fingerprint."""
        return _tensors(self.layers)


class ExactContextNetwork:
    """g_cm and g_ep on integers, at any set of positions: one gather and four matrix products.

    Encoder and decoder call the same function, the one with all positions at once, the other with those of one
    wavefront.

    Args:
        g_cm: trained context prediction.
        g_ep: trained entropy parameters.

    Raises:
        FreezeError: see `freeze_layer`.
    """

    def __init__(self, g_cm: ContextPrediction, g_ep: EntropyParameterNetwork) -> None:
        masked = g_cm.weight * g_cm.mask
        context = freeze_layer("g_cm", g_cm, slope=1.0, input_fraction=0, weight=masked)
        taps = torch.nonzero(g_cm.mask)  # (12, 2): rows and columns of the live taps
        self.reach = g_cm.kernel_size[0] // 2
        self.offsets = (taps - self.reach).tolist()
        live = context.weight[:, :, taps[:, 0], taps[:, 1]]  # (2M, M, 12)
        self.context = context._replace(weight=live.permute(2, 1, 0).flatten(0, 1).contiguous())  # (12 M, 2M)
        self.layers = [
            layer._replace(weight=layer.weight.flatten(1).T.contiguous())  # (in, out)
            for layer in _freeze_sequence("g_ep", g_ep, input_fraction=FRACTION_BITS)
        ]
        self.num_phi = self.context.weight.shape[1]

    def precompute(self, psi: Tensor) -> Tensor:
        """The hyperprior's half of g_ep's first layer, which waits for no latent: (positions, 2M) -> (positions,
        10M/3)."""
        return psi @ self.layers[0].weight[: -self.num_phi]

    def raw(self, y_padded: Tensor, index: Tensor, stride: int, from_psi: Tensor | None) -> Tensor:
        """Raw entropy parameters at P positions.

        Args:
            y_padded: (rows * stride, M) float64, integers: latents by position, with a border of `reach` zeros.
            index: (P,) rows of y_padded.
            stride: positions per row of latents, border included.
            from_psi: (P, 10M/3), `precompute` at these positions; None without a hyperprior.

        Returns:
            (P, outputs) float64, steps of 2^-12.
        """
        taps = torch.tensor([row * stride + column for row, column in self.offsets])
        gathered = y_padded[(index[:, None] + taps).flatten()].view(len(index), -1)  # (P, 12 M)
        phi = self.context.activation(
            torch.addmm(self.context.bias, gathered.clamp_(-LATENT_CLAMP, LATENT_CLAMP), self.context.weight),
            self.context.shift,
        )
        first = self.layers[0]
        x = torch.addmm(first.bias, phi, first.weight[-self.num_phi :])
        x = first.activation(x if from_psi is None else x + from_psi, first.shift)
        for layer in self.layers[1:]:
            x = layer.activation(torch.addmm(layer.bias, x, layer.weight), layer.shift)
        return x

    def tensors(self) -> Iterator[Tensor]:
        """All that determines the output, for the fingerprint."""
        return _tensors([self.context, *self.layers])


def _freeze_sequence(name: str, network: nn.Sequential, input_fraction: int) -> list[FixedPointLayer]:
    modules = list(network)
    layers = []
    for position in range(0, len(modules), 2):
        layer = modules[position]
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        activation = modules[position + 1] if position + 1 < len(modules) else None
        slope = 1.0 if activation is None else float(getattr(activation, "negative_slope", 0.0))
        layers.append(freeze_layer(f"{name}.{position}", layer, slope, input_fraction))
        input_fraction = FRACTION_BITS
    return layers


def _tensors(layers: list[FixedPointLayer]) -> Iterator[Tensor]:
    for layer in layers:
        yield from (layer.weight, layer.bias, torch.tensor([layer.shift, layer.activation.slope], dtype=torch.float64))
