"""GDN with gradients on a CPU, in blocks of a few thousand positions.

A map at half the image's resolution does not fit a cache, and the formula makes a dozen passes over it; here each block
of positions goes through all passes while it is in the cache. Maps in channels_last memory are matrices of positions by
channels, so that the pooling over channels is a plain matrix product. The custom operators appear as single nodes in
the graphs of torch.compile.

With n_i = beta_i + sum_j gamma_ij x_j^2, e = 1/2 if inverse, else -1/2, and g the gradient with respect to y (see
`layers.GDN`), the forward pass, and the gradients with respect to x, beta and gamma, are:

    y_i  = x_i n_i^e
    p_i  = g_i x_i n_i^(e - 1)
    x:      g_j n_j^e + 2 e x_j sum_i gamma_ij p_i
    beta:   e sum p_i
    gamma:  e sum p_i x_j^2     (both sums run over all positions)
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 2048
"""Positions per block: with 128 channels in float32, a megabyte for each map in use; half of that in bfloat16."""


def is_blocked(x: Tensor) -> bool:
    """Check whether these operators support a map (B, C, H, W): it must be on a CPU and in channels_last memory."""
    return x.device.type == "cpu" and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("jahp_pl::gdn", mutates_args=())
def gdn(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """Apply GDN to a map (B, C, H, W) that satisfies `is_blocked`, in the precision of x, with sums in float32.

    Returns:
        y and the factors n^e, both with the dtype and memory format of x.
    """
    y, factor = torch.empty_like(x), torch.empty_like(x)
    transposed, beta = gamma.t().to(x.dtype).contiguous(), beta.to(x.dtype)
    for rows, out, norm in zip(_blocks(x), _blocks(y), _blocks(factor), strict=True):
        torch.addmm(beta, rows.square(), transposed, out=norm)  # n_i = beta_i + sum_j gamma_ij x_j^2
        _ = norm.sqrt_() if inverse else norm.rsqrt_()
        torch.mul(rows, norm, out=out)
    return y, factor


@gdn.register_fake
def _(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@torch.library.custom_op("jahp_pl::gdn_backward", mutates_args=())
def gdn_backward(
    grad: Tensor, x: Tensor, factor: Tensor, gamma: Tensor, inverse: bool, learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients with respect to x, beta and gamma; the last two are in float32, and 0 unless `learns`."""
    by_x = torch.empty_like(x)
    by_beta, by_gamma = torch.zeros(len(gamma)), torch.zeros_like(gamma)
    sign = 1 if inverse else -1  # 2 e
    grad, typed = grad.contiguous(memory_format=torch.channels_last), gamma.to(x.dtype)
    for g, rows, f, out in zip(_blocks(grad), _blocks(x), _blocks(factor), _blocks(by_x), strict=True):
        torch.mul(g, f, out=out)  # g_j n_j^e
        # p_i = g_i x_i n_i^(e - 1)
        pull = (g * rows).div_(f) if inverse else (out * rows).mul_(f).mul_(f)
        if learns:
            by_beta += pull.sum(0, dtype=torch.float32)
            by_gamma += torch.mm(pull.t(), rows.square())
        out.addcmul_(rows, torch.mm(pull, typed), value=sign)  # + 2 e x_j sum_i gamma_ij p_i
    return by_x, by_beta.mul_(0.5 * sign), by_gamma.mul_(0.5 * sign)


@gdn_backward.register_fake
def _(
    grad: Tensor, x: Tensor, factor: Tensor, gamma: Tensor, inverse: bool, learns: bool
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
    learns = any(ctx.needs_input_grad[1:3])  # type: ignore[attr-defined]
    by_x, by_beta, by_gamma = gdn_backward(grad, x, factor, gamma, ctx.inverse, learns)  # type: ignore[attr-defined]
    return by_x, by_beta if learns else None, by_gamma if learns else None, None


gdn.register_autograd(_backward, setup_context=_setup)
