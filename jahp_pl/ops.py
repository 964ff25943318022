"""Elementwise operations whose gradient is not the derivative of their value, and a check of values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def is_finite(values: Tensor) -> bool:
    """Check that no number is infinite or NaN, in one pass and without a temporary tensor of the same size."""
    if values.numel() == 0 or not values.is_floating_point():
        return True
    return all(math.isfinite(float(end)) for end in torch.aminmax(values.detach()))  # NaN wins over all numbers


def round_straight_through(x: Tensor) -> Tensor:
    """Round to the nearest integer (ties to even), with the gradient of the identity.

    Args:
        x: any shape.
    """
    return x + (torch.round(x) - x).detach()


def add_uniform_noise(x: Tensor) -> Tensor:
    """Add u ~ U(-1/2, 1/2), the differentiable stand-in for rounding (Balle et al. 2017, section 3).

    The result has the density of x convolved with a unit box, which at each integer equals the probability that the
    rounded x is that integer.
    """
    return x + torch.rand_like(x).sub_(0.5)


class _LowerBound(torch.autograd.Function):
    """max(x, bound), whose gradient also passes below the bound if it would raise x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        passes = (x >= ctx.bound) | (grad < 0)
        return grad * passes, None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """Compute max(x, bound), with a gradient that passes through wherever a descent step would raise x.

    With a plain clamp, a value that once fell below the bound would get no gradient and stay there.
    """
    result: Tensor = _LowerBound.apply(x, bound)  # type: ignore[no-untyped-call]
    return result
