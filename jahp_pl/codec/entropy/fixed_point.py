"""Linear layers on integers that float32 carries exactly.

A range decoder must see the encoder's probabilities to the last bit, and float networks do not give them: the order of
summation, hence the result, depends on the shape of the batch, the number of threads, the library and the machine. Here
both sides of a matrix product are integers, so every product and every partial sum is an integer too, and below 2^24
float32 holds them all: nothing is ever rounded, in whatever order they are added. That is proved when a model is
frozen, per output channel: the sum of |weights| times the largest input. What happens between two matrix products is
elementwise, for which IEEE 754 prescribes the result.

Weights are integers on a grid of their own for each output channel, the finest for which 24 bits can be proved. Inputs
are block floating point: at each position the channels are integers of 11 bits times a power of two that follows from
the largest of them. So no range has to be guessed, and a product costs what it costs in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.errors import JahpError

FLOAT32_EXACT = 2**24
"""float32 holds every integer up to here."""
LARGEST_INPUT = 2**10
"""Inputs are integers from -2^10 to 2^10: 11 bits."""
SMALLEST, LARGEST = 2.0**-40, 2.0**40
"""Rows of activations whose largest is below count as if it were this much; what is above is clamped."""
GRID_LIMIT = 32
"""Weights are multiples of something from 2^-32 to 2^32, so that all scales are ordinary floats."""
FEW_ROWS = 64
"""Up to here a product is bound by reading the weights."""
_EXPONENT_FIELD = 0x7F800000


class FreezeError(JahpError, ValueError):
    """A model whose arithmetic cannot be shown to be exact; the message names the layer."""


class Rows(NamedTuple):
    """Activations at n positions in block floating point: mantissas * steps."""

    mantissas: Tensor
    """(n, channels) float32, integers."""
    steps: Tensor
    """(n, 1) float32, powers of two."""


class FixedPointLayer(NamedTuple):
    """A linear layer, or a convolution seen as one for each tap."""

    weight: Tensor
    """(taps, in, out) float32, integers: per output channel a multiple of its entry of `grid`."""
    bias: Tensor
    """(out,) float32."""
    grid: Tensor
    """(out,) float32, powers of two: what one step of a weight is worth."""
    slope: float
    """Of the nonlinearity behind the layer, below zero: 1 for none, 0 for ReLU."""
    halves: Tensor | None
    """(taps, 2, in, out / 2) float32: `weight` once more, each half of the outputs in one piece, so that two threads
    need not share a product of few rows, which takes a third off its time. None for an odd number of outputs."""

    def add(self, out: Tensor, rows: Rows, tap: int = 0) -> Tensor:
        """out += rows @ weight[tap], in place: (n, out) float32.

        The product is exact, and so is its scaling by powers of two; the one rounding is that of the addition to
        `out`, as IEEE 754 says, with or without fused multiply-add.
        """
        # A graph (`graphs`) is for any number of rows, hence the test for it comes first.
        if self.halves is None or torch.compiler.is_compiling() or len(rows.mantissas) > FEW_ROWS:
            product = torch.mm(rows.mantissas, self.weight[tap])
        else:
            both = torch.bmm(rows.mantissas.expand(2, -1, -1), self.halves[tap])
            product = both.transpose(0, 1).reshape(-1, len(self.bias))
        return out.addcmul_(product.mul_(rows.steps), self.grid)

    def __call__(self, rows: Rows, start: Tensor | None = None) -> Tensor:
        """(n, in) -> (n, out) float32, the nonlinearity included; `start` takes the place of the bias."""
        start = self.bias if start is None else start
        return self.activate(self.add(start.expand(rows.mantissas.shape[0], -1).clone(), rows))

    def activate(self, values: Tensor) -> Tensor:
        """The nonlinearity, in place."""
        return F.leaky_relu_(values, self.slope) if self.slope != 1.0 else values

    def to(self, device: torch.device) -> FixedPointLayer:
        """The same on another device."""
        halves = None if self.halves is None else self.halves.to(device)
        return FixedPointLayer(self.weight.to(device), self.bias.to(device), self.grid.to(device), self.slope, halves)

    def tensors(self) -> Iterator[Tensor]:
        """All that determines the output, for the fingerprint."""
        yield from (self.weight, self.bias, self.grid, torch.tensor(self.slope, dtype=torch.float64))


def freeze_layer(
    name: str,
    weight: Tensor,
    bias: Tensor | None,
    slope: float,
    largest_input: int = LARGEST_INPUT,
) -> FixedPointLayer:
    """Round a layer to the finest grids for which 24 bits can be proved.

    Args:
        name: for the error message.
        weight: (taps, in, out) trained weights.
        bias: (out,) trained biases; None for none.
        slope: of the nonlinearity behind the layer; 1 for none.
        largest_input: magnitude of the integers that come in.

    Raises:
        FreezeError: not finite, or so large that no grid is left.
    """
    weight = weight.detach().cpu().double()
    bias = weight.new_zeros(weight.shape[-1]) if bias is None else bias.detach().cpu().double()
    if not (bool(torch.isfinite(weight).all()) and bool(torch.isfinite(bias).all())):
        raise FreezeError(f"{name}: has weights that are not finite; train again from an earlier checkpoint")
    # Rounding may add half a step per input to a sum, so that much is left free.
    room = FLOAT32_EXACT // largest_input - weight.shape[1] // 2 - 1
    if room < 2**6:
        raise FreezeError(f"{name}: {weight.shape[1]} inputs are too many for exact sums")
    largest = weight.abs().sum(1).amax(0) / room
    # Powers of two by frexp and Python's arithmetic, which are exact; a vectorized log2 or exp2 may miss them.
    exponents = [max(math.frexp(value)[1], -GRID_LIMIT) if value else 0 for value in largest.tolist()]
    if max(exponents) > GRID_LIMIT:
        raise FreezeError(f"{name}: weights up to {float(weight.abs().max()):.2e}; they have grown out of proportion")
    grid = weight.new_tensor([2.0**exponent for exponent in exponents])
    integers = torch.round(weight / grid)
    reached = int(integers.abs().sum(1).max()) * largest_input
    assert reached < FLOAT32_EXACT, f"{name}: {reached} grid steps"
    weight = integers.float().contiguous()
    halves = torch.stack(weight.chunk(2, dim=-1), dim=1).contiguous() if weight.shape[-1] % 2 == 0 else None
    return FixedPointLayer(weight, bias.float(), grid.float(), slope, halves)


def quantize(values: Tensor) -> Rows:
    """Activations (n, channels) float32 -> the nearest integers up to 2^10 times a power of two per row.

    Multiplying and dividing by powers of two is exact, so nothing here hangs on the machine.
    """
    largest = values.abs().amax(1, keepdim=True)
    if torch.compiler.is_compiling():
        steps = _power_by_comparison(largest)
    else:  # A float32 without its sign and mantissa is the power of two at or below it.
        steps = largest.view(torch.int32).bitwise_and_(_EXPONENT_FIELD).view(torch.float32)
    steps.clamp_(SMALLEST, LARGEST).mul_(2.0 / LARGEST_INPUT)
    return Rows(torch.div(values, steps).round_().clamp_(-LARGEST_INPUT, LARGEST_INPUT), steps)


def _power_by_comparison(largest: Tensor) -> Tensor:
    """The power of two at or below each number (n, 1), from `SMALLEST` to `LARGEST`: for graphs, as their formats know
    no bits of a float."""
    exponents = range(round(math.log2(SMALLEST)), round(math.log2(LARGEST)) + 1)
    powers = torch.tensor([2.0**exponent for exponent in exponents], device=largest.device)
    return powers[(largest >= powers[1:]).sum(1)].unsqueeze(1)


def conv_taps(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """Weights of a convolution by tap, rows of the kernel from the top: (height * width, in, out)."""
    order = (2, 3, 0, 1) if isinstance(layer, nn.ConvTranspose2d) else (2, 3, 1, 0)
    return layer.weight.permute(*order).flatten(0, 1)
