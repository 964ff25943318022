"""Computes linear layers on integers that float32 represents exactly.

A range decoder needs the encoder's probabilities to the last bit, which float networks cannot guarantee: the order of
summation, and therefore the result, depends on the batch shape, the number of threads, the library and the machine.
Here both operands of a matrix product are integers, so all products and partial sums are integers too. Below 2^24
float32 holds them exactly, and nothing is rounded in any order of summation. This is proved per output channel when
`integer_layers` converts a model: the sum of |weights| times the largest input stays below 2^24. Between two matrix
products everything is elementwise, and IEEE 754 defines the result.

Weights are integers on a grid per output channel, the finest for which the bound can be proved. Inputs are in block
floating point: at each position the channels are 11-bit integers times a power of two derived from the largest of
them. Therefore no range has to be calibrated, and a product costs the same as in float32.

Both are stored as values, integer times power of two. A power of two common to a row of inputs, or to the weights of
an output, changes only the exponents in a sum, so whatever is exact for the integers is exact for the values. The
values are between 2^-81 and 2^87, so none underflows or overflows.
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

from jahp_pl.codec.entropy.integer_layers import LARGEST_INPUT, ROW_MAX, ROW_MIN, IntegerLayer
from jahp_pl.codec.packed_weights import multiply, pack_if_faster

EXPONENT_FIELD = 0x7F800000
"""Mask of the exponent bits of a float32."""
ANCHOR = 1.5 * 2.0**23 * 2 / LARGEST_INPUT
"""1.5 * 2^23 steps, as a multiple of the largest power of two in the row."""

BLOCK_ROWS = 128
"""Rows that MKL multiplies at a time; with 200 or more it is 12 % slower."""
PACKED_BLOCK_ROWS = 1024
"""Rows that oneDNN multiplies at a time."""


class FixedPointLayer(NamedTuple):
    """A linear layer, or a convolution as one linear layer per tap."""

    weight: Tensor
    """(taps, in, out) float32, multiples of `grid`."""
    bias: Tensor
    """(out,) float32."""
    grid: Tensor
    """(out,) float32, powers of two: value of one integer step of a weight."""
    slope: float
    """Slope of the following nonlinearity below zero: 1 for none, 0 for ReLU."""
    packed: list[Tensor | None]
    """Result of `packed_weights.pack_if_faster` for the weights of each tap."""

    def add(self, start: Tensor, rows: Tensor, tap: int = 0) -> Tensor:
        """Compute start + rows @ weight[tap], (n, out) float32.

        The product is exact, and only the addition rounds, as IEEE 754 defines. The product must therefore be complete
        before `start` is added; torch.addmm may add them in parts.

        Args:
            start: (n, out) or (out,).
            rows: (n, in), see `quantize`.
            tap: index of the weights.
        """
        return multiply(rows, self.weight[tap], self.packed[tap]).add_(start)

    def __call__(self, rows: Tensor, start: Tensor | None = None) -> Tensor:
        """Apply the layer and its nonlinearity: (n, in) -> (n, out) float32; `start` replaces the bias."""
        return self.activate(self.add(self.bias if start is None else start, rows))

    def activate(self, values: Tensor) -> Tensor:
        """Apply the nonlinearity in place."""
        return F.leaky_relu_(values, self.slope) if self.slope != 1.0 else values

    def to(self, device: torch.device) -> FixedPointLayer:
        """Copy the layer to another device."""
        weight, bias, grid = (part.to(device) for part in (self.weight, self.bias, self.grid))
        return FixedPointLayer(weight, bias, grid, self.slope, [pack_if_faster(tap) for tap in weight])

    def fingerprint_arrays(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yield everything that determines the output, for the fingerprint."""
        weight, bias, grid = (part.cpu().numpy() for part in (self.integers(), self.bias, self.grid))
        yield from IntegerLayer(weight, bias, grid, self.slope).fingerprint_arrays()

    def blocks(self, num_rows: int) -> Iterator[slice]:
        """Split rows into blocks of the size at which a CPU multiplies fastest and whose results stay in a cache."""
        is_whole = self.weight.device.type != "cpu" or torch.compiler.is_compiling()
        size = num_rows if is_whole else BLOCK_ROWS if self.packed[0] is None else PACKED_BLOCK_ROWS
        for start in range(0, num_rows, size):
            yield slice(start, min(start + size, num_rows))

    def integers(self) -> Tensor:
        """Return the weights in steps of `grid`, (taps, in, out) float32."""
        return self.weight / self.grid


def to_torch(layer: IntegerLayer) -> FixedPointLayer:
    """Convert a layer from arrays to tensors on the CPU."""
    weight = torch.from_numpy(layer.weight * layer.grid)
    bias, grid = torch.from_numpy(layer.bias), torch.from_numpy(layer.grid)
    return FixedPointLayer(weight, bias, grid, layer.slope, [pack_if_faster(tap) for tap in weight])


def quantize(values: Tensor) -> Tensor:
    """Round activations (n, channels) float32 to integers from -2^10 to 2^10 times a power of two for each row.

    All operations are exact except the rounding itself, so the result does not depend on the machine.
    """
    largest = values.abs().amax(1, keepdim=True)
    if torch.compiler.is_compiling():
        steps = _power_by_comparison(largest).mul_(2.0 / LARGEST_INPUT)
        rounded = torch.div(values, steps).round_().mul_(steps)
    else:
        # A float32 without its sign and mantissa is the power of two at or below it.
        power = largest.clamp_(ROW_MIN, ROW_MAX).view(torch.int32).bitwise_and_(EXPONENT_FIELD).view(torch.float32)
        # float32 has no bits below one step next to this number, so adding it rounds to whole steps, halves to even.
        anchor = power.mul_(ANCHOR)
        rounded = torch.add(values, anchor).sub_(anchor)
    return rounded.clamp_(-2 * ROW_MAX, 2 * ROW_MAX)  # effective only in rows whose step is the largest


def _power_by_comparison(largest: Tensor) -> Tensor:
    """Return the power of two at or below each number (n, 1), from `ROW_MIN` to `ROW_MAX`.

    Used in exported graphs, whose formats cannot access the bits of a float.
    """
    exponents = range(round(math.log2(ROW_MIN)), round(math.log2(ROW_MAX)) + 1)
    powers = torch.tensor([2.0**exponent for exponent in exponents], device=largest.device)
    return powers[(largest >= powers[1:]).sum(1)].unsqueeze(1)
