"""The paper's layers: GDN, convolutions of stride 2, transposed convolutions, and those with a causal mask."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jahp_pl.blocked_gdn import gdn, supports_blocks
from jahp_pl.ops import lower_bound


class _Normalization(torch.autograd.Function):
    """GDN of whole maps (B, C, H, W), with the formulas of `blocked_gdn`; differentiable once.

    With autograd, the backward pass of the plain formula would read the maps twice as often, and x^2 would be kept too.
    If beta and gamma need no gradient, as in a search over latents, only the sum over i is computed, as a forward
    convolution.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
        norm = F.conv2d(x.square(), gamma[:, :, None, None], beta)  # n_i = beta_i + sum_j gamma_ij x_j^2
        factor = norm.sqrt_() if inverse else norm.rsqrt_()  # n^e
        y = x * factor
        ctx.inverse = inverse
        ctx.save_for_backward(x, gamma, factor, *(() if inverse else (y,)))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, gamma, factor, *y = ctx.saved_tensors
        grad_x = grad * factor  # g_j n_j^e
        # p_i = g_i x_i n_i^(e - 1), from x n^-e if e = 1/2, and from y = x n^e otherwise
        pull = (grad * x).div_(factor) if ctx.inverse else (y[0] * factor).mul_(grad_x)
        sign = 1 if ctx.inverse else -1  # 2 e
        if not any(ctx.needs_input_grad[1:3]):
            return grad_x.addcmul_(x, F.conv2d(pull, gamma.t()[:, :, None, None]), value=sign), None, None, None
        kernel, plain = gamma[:, :, None, None], ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)  # no stride, no padding
        grad_squares, grad_gamma, grad_beta = torch.ops.aten.convolution_backward(
            pull, x.square(), kernel, gamma.shape[:1], *plain, (True, True, True)
        )
        return (
            grad_x.addcmul_(x, grad_squares, value=sign),
            0.5 * sign * grad_beta,
            0.5 * sign * grad_gamma[..., 0, 0],
            None,
        )


class GDN(nn.Module):
    """Generalized divisive normalization and its approximate inverse (Balle, Laparra & Simoncelli 2016).

        GDN:   y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2)
        IGDN:  y_i = x_i * sqrt(beta_i + sum_j gamma_ij x_j^2)

    beta and gamma stay non-negative because each value is stored as s, with value = max(s, sqrt(bound + eps))^2 - eps
    and eps = 2^-36: near zero a value takes ever smaller steps instead of being clipped. The pooling over j is a 1x1
    convolution, i.e. one matrix product.

    Args:
        num_channels: C.
        inverse: multiply instead of dividing.
        gamma_init: gamma starts as this times the identity; beta starts at 1.
    """

    PEDESTAL = 2.0**-36
    BETA_MIN = 1e-6

    def __init__(self, num_channels: int, inverse: bool = False, gamma_init: float = 0.1) -> None:
        super().__init__()
        self.inverse = inverse
        # Filled, not computed: `export` checks shapes on meta tensors, where arithmetic would import torch's compiler.
        self.beta = nn.Parameter(torch.full((num_channels,), math.sqrt(1 + self.PEDESTAL)))
        gamma = torch.full((num_channels, num_channels), math.sqrt(self.PEDESTAL))
        self.gamma = nn.Parameter(gamma.fill_diagonal_(math.sqrt(gamma_init + self.PEDESTAL)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W) -> (B, C, H, W).

        The computation is in float32 even under autocast, because x^2 exceeds the range of half precision. With
        gradients, a map on a CPU in channels_last memory goes through `blocked_gdn`, which computes in the dtype of x.
        """
        with torch.autocast(x.device.type, enabled=False):
            if torch.is_grad_enabled() and (x.requires_grad or self.gamma.requires_grad) and supports_blocks(x):
                return gdn(x, *self.beta_gamma(), self.inverse)
            x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            beta, gamma = self.beta_gamma()
            y: Tensor = _Normalization.apply(x, beta, gamma, self.inverse)  # type: ignore[no-untyped-call]
            return y

    def beta_gamma(self) -> tuple[Tensor, Tensor]:
        """Return beta (C,) and gamma (C, C) as they appear in the equations."""
        return self._value(self.beta, self.BETA_MIN), self._value(self.gamma, 0.0)

    def _value(self, stored: Tensor, bound: float) -> Tensor:
        # value = max(s, sqrt(bound + eps))^2 - eps
        bounded: Tensor = lower_bound(stored, (bound + self.PEDESTAL) ** 0.5)
        return bounded.square() - self.PEDESTAL

    def extra_repr(self) -> str:
        """Describe the layer for `print(model)`."""
        return f"{self.beta.numel()}, inverse={self.inverse}"


class StridedConv2d(nn.Conv2d):
    """`nn.Conv2d` of stride 2 whose gradients are right for maps of a single column too.

    For such maps, in bfloat16 on CPUs with AMX, oneDNN (as of torch 2.13) reads memory outside the map when it computes
    the gradient of the weights, which is then wrong or not finite. Crops of 32 pixels have such a map in h_a.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, in, H, W) to (B, out, ceil(H / 2), ceil(W / 2))."""
        if x.shape[-1] == 1 and torch.is_grad_enabled():
            x = F.pad(x, (0, 1))  # another column of zeros, as in the padding, does not change the result
        return super().forward(x)


class _TransposedConvolution(torch.autograd.Function):
    """Transposed convolution whose backward pass sums the bias's gradient itself; differentiable once.

    oneDNN, which torch calls on CPUs, computes that sum element by element: in bfloat16 it took as long as the other
    gradients together.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, weight)
        y: Tensor = torch.ops.aten.convolution(x, weight, bias, *geometry)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        needed = (needs_x, needs_weight, False)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *ctx.geometry, needed)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs_bias else None, None


class TransposedConv2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with a faster backward pass on CPUs; the result is the same to the last bit.

    The output size follows from the arguments of the constructor; `output_size` cannot be given.
    """

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve (B, in, H, W) to (B, out, s H, s W), with stride s."""
        if x.device.type != "cpu" or not torch.is_grad_enabled() or self.bias is None:
            return super().forward(x)
        tensors: tuple[Tensor, ...] = (x, self.weight, self.bias)
        if torch.is_autocast_enabled("cpu"):  # autocast does not apply inside custom autograd functions
            tensors = tuple(tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors)
        geometry = (self.stride, self.padding, self.dilation, True, self.output_padding, self.groups)
        result: Tensor = _TransposedConvolution.apply(*tensors, geometry)  # type: ignore[no-untyped-call]
        return result


class MaskedConv2d(nn.Conv2d):
    """Convolution that sees only positions before its own in raster order (mask A of van den Oord et al. 2016).

    A k x k kernel keeps the (k^2 - 1) / 2 taps above and to the left of its center, 12 for k = 5. The output at (i, j)
    depends on inputs in rows above i, and in row i on columns before j.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel_size: k, odd.
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        mask = torch.zeros(kernel_size**2)
        mask[: kernel_size**2 // 2] = 1
        # Not persistent: the kernel size determines it, so checkpoints need not hold it.
        self.register_buffer("mask", mask.view(kernel_size, kernel_size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, in, h, w) to (B, out, h, w)."""
        result: Tensor = self._conv_forward(x, self.weight * self.mask, self.bias)
        return result
