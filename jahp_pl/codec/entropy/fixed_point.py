"""Linear layers on integers that float32 represents exactly.

A range decoder needs the encoder's probabilities to the last bit, which float networks cannot guarantee: the order of
summation, and therefore the result, depends on the batch shape, the number of threads, the library and the machine.
Here both operands of a matrix product are integers, so all products and partial sums are integers too. Below 2^24
float32 holds them exactly, and nothing is rounded in any order of summation. This is proved per output channel when a
model is frozen: the sum of |weights| times the largest input stays below 2^24. Between two matrix products everything
is elementwise, and IEEE 754 defines the result.

Weights are integers on a grid per output channel, the finest for which the bound can be proved. Inputs are in block
floating point: at each position the channels are 11-bit integers times a power of two derived from the largest of
them. So no range has to be calibrated, and a product costs the same as in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.entropy.freezing import LARGEST, LARGEST_INPUT, SMALLEST, FrozenLayer, freeze

FEW_ROWS = 64
"""Up to this many rows, reading the weights dominates the time of a product."""
_EXPONENT_FIELD = 0x7F800000


class Rows(NamedTuple):
    """Activations at n positions in block floating point: mantissas * steps."""

    mantissas: Tensor
    """(n, channels) float32, integers."""
    steps: Tensor
    """(n, 1) float32, powers of two."""


class FixedPointLayer(NamedTuple):
    """A linear layer, or a convolution as one linear layer per tap."""

    weight: Tensor
    """(taps, in, out) float32 integers; in units of `grid` per output channel."""
    bias: Tensor
    """(out,) float32."""
    grid: Tensor
    """(out,) float32, powers of two: value of one integer step of a weight."""
    slope: float
    """Slope of the following nonlinearity below zero: 1 for none, 0 for ReLU."""
    halves: Tensor | None
    """(taps, 2, in, out / 2) float32: copy of `weight` with each half of the outputs contiguous. Two threads then take
    one half each of a product of few rows, which saves a third of its time. None if the number of outputs is odd."""

    def add(self, out: Tensor, rows: Rows, tap: int = 0) -> Tensor:
        """Compute out += rows @ weight[tap] in place; out is (n, out) float32.

        The product and its scaling by powers of two are exact. The only rounding is that of the addition to `out`,
        which IEEE 754 defines, with or without fused multiply-add.
        """
        # Checked first under compilation, because a compiled graph (`model_io.onnx`) must accept any number of rows.
        if self.halves is None or torch.compiler.is_compiling() or len(rows.mantissas) > FEW_ROWS:
            product = torch.mm(rows.mantissas, self.weight[tap])
        else:
            both = torch.bmm(rows.mantissas.expand(2, -1, -1), self.halves[tap])
            product = both.transpose(0, 1).reshape(-1, len(self.bias))
        return out.addcmul_(product.mul_(rows.steps), self.grid)

    def __call__(self, rows: Rows, start: Tensor | None = None) -> Tensor:
        """Apply the layer and its nonlinearity: (n, in) -> (n, out) float32; `start` replaces the bias."""
        start = self.bias if start is None else start
        return self.activate(self.add(start.expand(rows.mantissas.shape[0], -1).clone(), rows))

    def activate(self, values: Tensor) -> Tensor:
        """Apply the nonlinearity in place."""
        return F.leaky_relu_(values, self.slope) if self.slope != 1.0 else values

    def to(self, device: torch.device) -> FixedPointLayer:
        """Copy the layer to another device."""
        halves = None if self.halves is None else self.halves.to(device)
        return FixedPointLayer(self.weight.to(device), self.bias.to(device), self.grid.to(device), self.slope, halves)

    def arrays(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yield everything that determines the output, for the fingerprint."""
        weight, bias, grid = (part.cpu().numpy() for part in (self.weight, self.bias, self.grid))
        yield from FrozenLayer(weight, bias, grid, self.slope).arrays()


def freeze_layer(
    name: str, weight: Tensor, bias: Tensor | None, slope: float, largest_input: int = LARGEST_INPUT
) -> FixedPointLayer:
    """Freeze tensors on any device, see `freezing.freeze`: (taps, in, out) weights and (out,) biases."""
    doubles = None if bias is None else bias.detach().cpu().double().numpy()
    return to_torch(freeze(name, weight.detach().cpu().double().numpy(), doubles, slope, largest_input))


def to_torch(layer: FrozenLayer) -> FixedPointLayer:
    """Convert a frozen layer to tensors on the CPU."""
    weight = torch.from_numpy(layer.weight)
    halves = torch.stack(weight.chunk(2, dim=-1), dim=1).contiguous() if weight.shape[-1] % 2 == 0 else None
    return FixedPointLayer(weight, torch.from_numpy(layer.bias), torch.from_numpy(layer.grid), layer.slope, halves)


def quantize(values: Tensor) -> Rows:
    """Convert activations (n, channels) float32 to integers up to 2^10 times a power of two per row.

    Multiplication and division by powers of two are exact, so the result does not depend on the machine.
    """
    largest = values.abs().amax(1, keepdim=True)
    if torch.compiler.is_compiling():
        steps = _power_by_comparison(largest)
    else:  # A float32 without its sign and mantissa is the power of two at or below it.
        steps = largest.view(torch.int32).bitwise_and_(_EXPONENT_FIELD).view(torch.float32)
    steps.clamp_(SMALLEST, LARGEST).mul_(2.0 / LARGEST_INPUT)
    return Rows(torch.div(values, steps).round_().clamp_(-LARGEST_INPUT, LARGEST_INPUT), steps)


def _power_by_comparison(largest: Tensor) -> Tensor:
    """Return the power of two at or below each number (n, 1), clamped to `SMALLEST` and `LARGEST`.

    For exported graphs, whose formats cannot access the bits of a float.
    """
    exponents = range(round(math.log2(SMALLEST)), round(math.log2(LARGEST)) + 1)
    powers = torch.tensor([2.0**exponent for exponent in exponents], device=largest.device)
    return powers[(largest >= powers[1:]).sum(1)].unsqueeze(1)
