"""Computes GDN and its gradients on a CPU, in blocks of a few thousand positions.

A map at half the image's resolution does not fit a cache, and the formula makes a dozen passes over it; here each block
of positions stays in the cache during all passes. Maps in channels_last memory are matrices of positions by
channels, so that the pooling over channels is a plain matrix product. In the graphs of torch.compile, custom operators
appear as single nodes. Elsewhere they are not used, because their first call imports torch's compiler, which takes a
second.

With n_i = beta_i + sum_j gamma_ij x_j^2, e = 1/2 if inverse, else -1/2, and g the gradient with respect to y (see
`layers.GDN`), the forward pass, and the gradients with respect to x, beta and gamma, are:

    y_i  = x_i n_i^e
    p_i  = g_i x_i n_i^(e - 1)
    x:      g_j n_j^e + 2 e x_j sum_i gamma_ij p_i
    beta:   e sum p_i
    gamma:  e sum p_i x_j^2     (both sums run over all positions)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 2048
"""Positions per block. With 128 channels, a block of one map takes 1 MiB in float32 and half of that in bfloat16."""


def supports_blocks(x: Tensor) -> bool:
    """Check whether `gdn` can process a map (B, C, H, W): it must be on a CPU and in channels_last memory."""
    return x.device.type == "cpu" and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def gdn(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
    """Apply GDN in the precision of x, with sums in float32; differentiable once.

    Args:
        x: (B, C, H, W) map that satisfies `supports_blocks`.
        beta: (C,), > 0.
        gamma: (C, C), >= 0.
        inverse: whether to multiply instead of dividing.

    Returns:
        (B, C, H, W) in the dtype and memory format of x.
    """
    if torch.compiler.is_compiling():
        y: Tensor = gdn_operator(x, beta, gamma, inverse)[0]
        return y
    return _Gdn.apply(x, beta, gamma, inverse)  # type: ignore[no-untyped-call, no-any-return]


def _normalize(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """Return y and the factors n^e."""
    y, factor = torch.empty_like(x), torch.empty_like(x)
    transposed, beta = gamma.t().to(x.dtype).contiguous(), beta.to(x.dtype)
    for rows, out, norm in zip(_blocks(x), _blocks(y), _blocks(factor), strict=True):
        torch.addmm(beta, rows.square(), transposed, out=norm)  # n_i = beta_i + sum_j gamma_ij x_j^2
        _ = norm.sqrt_() if inverse else norm.rsqrt_()
        torch.mul(rows, norm, out=out)
    return y, factor


gdn_operator = torch.library.custom_op("jahp_pl::gdn", _normalize, mutates_args=())


@gdn_operator.register_fake
def _(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def _gradients(
    grad: Tensor, x: Tensor, factor: Tensor, gamma: Tensor, inverse: bool, needs_parameters: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients with respect to x, beta and gamma.

    Those of beta and gamma are in float32, and 0 unless `needs_parameters`.
    """
    grad_x = torch.empty_like(x)
    grad_beta, grad_gamma = torch.zeros(len(gamma)), torch.zeros_like(gamma)
    sign = 1 if inverse else -1  # 2 e
    grad, typed = grad.contiguous(memory_format=torch.channels_last), gamma.to(x.dtype)
    for g, rows, f, out in zip(_blocks(grad), _blocks(x), _blocks(factor), _blocks(grad_x), strict=True):
        torch.mul(g, f, out=out)  # g_j n_j^e
        # p_i = g_i x_i n_i^(e - 1)
        pull = (g * rows).div_(f) if inverse else (out * rows).mul_(f).mul_(f)
        if needs_parameters:
            grad_beta += pull.sum(0, dtype=torch.float32)
            grad_gamma += torch.mm(pull.t(), rows.square())
        out.addcmul_(rows, torch.mm(pull, typed), value=sign)  # + 2 e x_j sum_i gamma_ij p_i
    return grad_x, grad_beta.mul_(0.5 * sign), grad_gamma.mul_(0.5 * sign)


_gradients_operator = torch.library.custom_op("jahp_pl::gdn_backward", _gradients, mutates_args=())


@_gradients_operator.register_fake
def _(
    grad: Tensor, x: Tensor, factor: Tensor, gamma: Tensor, inverse: bool, needs_parameters: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), gamma.new_empty(len(gamma)), torch.empty_like(gamma)


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    """View (B, C, H, W) in channels_last memory as matrices of up to `ROWS` positions by C."""
    return torch.split(x.permute(0, 2, 3, 1).flatten(0, 2), ROWS)


def _setup(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor, bool], output: tuple[Tensor, Tensor]
) -> None:
    x, _, gamma, inverse = inputs
    ctx.set_materialize_grads(False)  # the factors are not used further
    ctx.save_for_backward(x, output[1], gamma)
    ctx.inverse = inverse  # type: ignore[attr-defined]


def _backward(
    ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
    x, factor, gamma = ctx.saved_tensors  # type: ignore[attr-defined]
    needs_parameters = any(ctx.needs_input_grad[1:3])  # type: ignore[attr-defined]
    inverse = ctx.inverse  # type: ignore[attr-defined]
    grad_x, grad_beta, grad_gamma = _gradients_operator(grad, x, factor, gamma, inverse, needs_parameters)
    return grad_x, grad_beta if needs_parameters else None, grad_gamma if needs_parameters else None, None


gdn_operator.register_autograd(_backward, setup_context=_setup)


class _Gdn(torch.autograd.Function):
    """`gdn_operator` without torch's compiler."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
        y, factor = _normalize(x, beta, gamma, inverse)
        ctx.save_for_backward(x, factor, gamma)
        ctx.inverse = inverse
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, factor, gamma = ctx.saved_tensors
        needs_parameters = any(ctx.needs_input_grad[1:3])
        grad_x, grad_beta, grad_gamma = _gradients(grad, x, factor, gamma, ctx.inverse, needs_parameters)
        return grad_x, grad_beta if needs_parameters else None, grad_gamma if needs_parameters else None, None
