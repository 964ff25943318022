"""SOAP (Vyas et al. 2025, arXiv:2409.11321): Adam in the eigenbasis of Shampoo's preconditioner.

The gradient of a weight is seen as G (O, K, I): output channels, taps of the kernel, input channels. For each of the
three axes a, along which the other two are summed,

    S_a <- decay * S_a + (1 - decay) * G G^T        (O, O), (K, K), (I, I)
    Q_a  = eigenvectors of S_a                      by one step of power iteration, every few steps
    G'   = G multiplied by Q_a^T along every axis   Adam keeps its moments m and v of G'
    W   <- W - rate * (m / sqrt(v) multiplied by Q_a along every axis)

Channels and taps of a transform are strongly correlated, so the axes along which Adam scales the gradient matter:
in the eigenbasis, its scaling approximates the inverse square root of the curvature.

Libraries compute the same with four projections of each gradient along all of its axes, one after the other; with the
bundled model's layers, that takes as long as the forward and backward pass. Here moments stay in the eigenbasis, taps
are one axis, and products take bfloat16 operands where these are faster, so that a step on a CPU takes a fifth longer
than with Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jahp_pl.bfloat16 import prefers_bfloat16

MIN_CHANNELS = 4
"""Weights with fewer input or output channels, and those that are neither matrices nor kernels, are updated by Adam."""
ADAM_BETAS = (0.9, 0.999)
"""Decay of the moments of those weights."""
BETAS = (0.95, 0.98)
"""Decay of the moments in the eigenbasis."""
DECAY = 0.98
"""Decay of the statistics S per step."""
FIRST_STEPS = 10
"""Steps that only gather statistics, for the first eigenbasis."""
STATISTICS_EVERY = 2
"""Steps between two updates of the statistics."""
BASIS_EVERY = 10
"""Steps between two updates of the eigenbasis."""
EPSILON = 1e-8
"""Added to the root of the second moment, as in Adam."""


class Soap(Optimizer):
    """SOAP for convolutions and matrices, Adam for all other weights.

    With `found_inf` set to 1 (see `torch.optim.Adam`), a step changes nothing; this waits for the device. All ranks of
    a distributed run take the same steps if they average their gradients, since the steps use no other input.

    Args:
        params: parameters or groups of them, with contiguous or channels_last weights.
        lr: learning rate; that of Adam is a good start.
    """

    found_inf: Tensor | None = None

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step with the gradients of the parameters, after computing them with `closure` if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.found_inf is not None and self.found_inf.item():
            return loss
        for index, (parameter, rate) in enumerate(self._parameters_and_rates()):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if uses_eigenbasis(parameter):
                _rotated_step(parameter, state, rate, offset=index)
            else:
                _adam_step(parameter, state, rate)
        return loss

    def _parameters_and_rates(self) -> Iterator[tuple[nn.Parameter, float]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                yield parameter, float(group["lr"])


def uses_eigenbasis(parameter: Tensor) -> bool:
    """Check whether a parameter is updated in an eigenbasis; the others are updated by Adam."""
    return parameter.dim() in (2, 4) and min(parameter.shape[:2]) >= MIN_CHANNELS


def _rotated_step(parameter: nn.Parameter, state: dict[str, Any], rate: float, offset: int) -> None:
    """Take a step of SOAP.

    Args:
        parameter: (O, I) or (O, I, height, width), with a gradient.
        state: moments, statistics and eigenvectors of this parameter; empty before the first step.
        rate: learning rate.
        offset: shifts the steps at which statistics and eigenbasis are updated, to spread the work.
    """
    assert parameter.grad is not None
    gradient = _split_axes(parameter.grad)
    if not state:
        state["step"] = torch.zeros(())  # torch keeps this name on the CPU and in float32
        state["moment"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["statistics"] = [gradient.new_zeros(length, length) for length in gradient.shape]
        state["basis"] = []
    state["step"] += 1
    step = int(state["step"])
    if state["basis"]:
        update = _adam_update(_rotate(gradient, state["basis"]), state, step - FIRST_STEPS, BETAS)
        update = _rotate(update, [basis.T for basis in state["basis"]])
        parameter.add_(_join_axes(update, parameter), alpha=-rate)
    if step <= FIRST_STEPS or (step + offset) % STATISTICS_EVERY == 0:
        _update_statistics(state["statistics"], gradient, max(1 - DECAY**STATISTICS_EVERY, 1 / step))
    if step == FIRST_STEPS:
        state["basis"] = [_eigenvectors(s) for s in state["statistics"]]
    elif step > FIRST_STEPS and (step + offset) % BASIS_EVERY == 0:
        _update_basis(state)


def _adam_step(parameter: nn.Parameter, state: dict[str, Any], rate: float) -> None:
    """Take a step of Adam (Kingma & Ba 2015)."""
    assert parameter.grad is not None
    if not state:
        state["step"] = torch.zeros(())
        state["moment"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    state["step"] += 1
    parameter.add_(_adam_update(parameter.grad, state, int(state["step"]), ADAM_BETAS), alpha=-rate)


def _adam_update(gradient: Tensor, state: dict[str, Any], step: int, betas: tuple[float, float]) -> Tensor:
    """Update the moments m and v, and return m / sqrt(v), both without the bias of their start at 0."""
    moment: Tensor = state["moment"]
    square: Tensor = state["square"]
    moment.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    unbias = math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
    return (moment / square.sqrt().add_(EPSILON)).mul_(unbias)


def _split_axes(weight: Tensor) -> Tensor:
    """Rearrange (O, I, height, width) or (O, I) to (O, K, I), with K = height * width taps; no copy in channels_last.

    Transposed convolutions have (I, O, height, width); then O and I change places, which makes no difference.
    """
    if weight.dim() == 2:
        return weight.unsqueeze(1)
    return weight.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def _join_axes(split: Tensor, like: Tensor) -> Tensor:
    """Undo `_split_axes` for a tensor of the shape of `like`."""
    if like.dim() == 2:
        return split.squeeze(1)
    return split.reshape(len(split), *like.shape[2:], -1).permute(0, 3, 1, 2)


def _rotate(x: Tensor, basis: list[Tensor]) -> Tensor:
    """Multiply (O, K, I) by one matrix along each axis, y[p, l, j] = sum of x[o, k, i] B0[o, p] B1[k, l] B2[i, j].

    Operands are rounded to bfloat16 where that is faster. A step is noisy anyway, and rounding it costs no more than
    its rounding error.
    """
    dtype = _operand_type(x.device)
    out_basis, tap_basis, in_basis = (matrix.to(dtype) for matrix in basis)
    y = (out_basis.T @ x.to(dtype).flatten(1)).view(x.shape)
    y = (y.flatten(0, 1) @ in_basis).view(x.shape)
    return (y if x.shape[1] == 1 else tap_basis.T @ y).float()


def _operand_type(device: torch.device) -> torch.dtype:
    """Return the type of the operands of matrix products."""
    return torch.bfloat16 if prefers_bfloat16(device) else torch.float32


def _update_statistics(statistics: list[Tensor], gradient: Tensor, weight: float) -> None:
    """Move the statistics of all axes by `weight` towards those of this gradient (O, K, I)."""
    low = gradient.to(_operand_type(gradient.device))
    by_out, by_in = low.flatten(1), low.flatten(0, 1)
    products = (by_out @ by_out.T, (low @ low.mT).float().sum(0), by_in.T @ by_in)
    for mean, product in zip(statistics, products, strict=True):
        mean.lerp_(product.float(), weight)


def _eigenvectors(statistics: Tensor) -> Tensor:
    """Return the eigenvectors of statistics (n, n) as columns, in descending order of eigenvalue.

    In float64, as LAPACK's float32 routine can fail for a wide layer: few gradients leave most eigenvalues at 0.
    """
    vectors: Tensor = torch.linalg.eigh(statistics.double()).eigenvectors
    return _zero_dead_rows(vectors.flip(1).to(statistics.dtype).contiguous(), statistics)


def _zero_dead_rows(basis: Tensor, statistics: Tensor) -> Tensor:
    """Zero the rows of the channels or taps that never had a gradient, in place, so that no update reaches them.

    Otherwise Adam's scaling would enlarge the rounding errors of their directions to whole steps.
    """
    return basis.mul_((statistics.diagonal() > 0).unsqueeze(1))


def _update_basis(state: dict[str, Any]) -> None:
    """Follow the eigenvectors by one step of power iteration along each axis, with the moments in the new basis.

    The second moment is not linear in the basis, so its entries only follow the new order of the eigenvectors.
    """
    for axis, (statistics, basis) in enumerate(zip(state["statistics"], state["basis"], strict=True)):
        if len(basis) == 1:
            continue
        product = statistics @ basis
        order = torch.argsort((basis * product).sum(0), descending=True)
        new = _zero_dead_rows(torch.linalg.qr(product[:, order]).Q, statistics)
        rotation = basis.T @ new
        state["basis"][axis] = new
        state["square"] = state["square"].index_select(axis, order)
        state["moment"] = torch.tensordot(state["moment"], rotation, dims=([axis], [0])).movedim(-1, axis).contiguous()
