"""Layers that are frozen as the codec freezes a model's, and the bound that keeps their sums exact."""

from __future__ import annotations

from torch import Tensor

from jahp_pl.codec.entropy import freezing
from jahp_pl.codec.entropy.fixed_point import FixedPointLayer, to_torch
from jahp_pl.codec.entropy.freezing import LARGEST_INPUT


def freeze_layer(
    name: str, weight: Tensor, bias: Tensor | None, slope: float, largest_input: int = LARGEST_INPUT
) -> FixedPointLayer:
    """Freeze weights (taps, in, out) and biases (out,) as the codec freezes a model's."""
    doubles = None if bias is None else bias.detach().double().numpy()
    return to_torch(freezing.freeze_layer(name, weight.detach().double().numpy(), doubles, slope, largest_input))


def largest_sum(layer: FixedPointLayer, largest_input: int = LARGEST_INPUT) -> int:
    """Compute the largest possible partial sum in Python integers."""
    weight = layer.integers().long().abs().tolist()
    largest: int = max(sum(column) for tap in weight for column in zip(*tap, strict=True))
    return largest * largest_input
