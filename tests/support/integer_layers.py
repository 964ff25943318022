"""Layers converted to integers as by the codec, and the bound that keeps their sums exact."""

from __future__ import annotations

from torch import Tensor

from jahp_pl.codec.entropy import integer_layers
from jahp_pl.codec.entropy.fixed_point import FixedPointLayer, to_torch
from jahp_pl.codec.entropy.integer_layers import LARGEST_INPUT


def convert_layer(
    name: str, weight: Tensor, bias: Tensor | None, slope: float, largest_input: int = LARGEST_INPUT
) -> FixedPointLayer:
    """Convert weights (taps, in, out) and biases (out,) as the codec does."""
    doubles = None if bias is None else bias.detach().double().numpy()
    return to_torch(integer_layers.convert_layer(name, weight.detach().double().numpy(), doubles, slope, largest_input))


def largest_sum(layer: FixedPointLayer, largest_input: int = LARGEST_INPUT) -> int:
    """Compute the largest possible partial sum in Python integers."""
    weight = layer.integers().long().abs().tolist()
    largest: int = max(sum(column) for tap in weight for column in zip(*tap, strict=True))
    return largest * largest_input
