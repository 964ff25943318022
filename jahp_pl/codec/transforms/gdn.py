"""GDN on matrices of positions by channels, into memory that is there already.

As a module, GDN makes four fresh tensors of the size of its input; on large images the system spends longer on handing
out their pages than the arithmetic takes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jahp_pl.layers import GDN

ROWS = 4096
"""Positions normalized at a time in place: their squares and norms stay within a cache."""


class Scratch:
    """Named float32 buffers that the strips of one call share; what a buffer held before is still in it.

    Args:
        device: where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """The buffer of that name in the given shape, not cleared."""
        size = math.prod(shape)
        buffer = self._buffers.pop(name, None)
        if buffer is None or buffer.numel() < size:
            del buffer  # before the larger one is there
            buffer = torch.empty(size, dtype=torch.float32, device=self.device)
        self._buffers[name] = buffer
        return buffer[:size].view(shape)


class MatrixGDN:
    """GDN or IGDN (see `layers.GDN`) with beta and gamma computed once.

    Args:
        gdn: the layer; its parameters are copied.
    """

    def __init__(self, gdn: GDN) -> None:
        self.inverse = gdn.inverse
        with torch.no_grad():
            beta, gamma = gdn.beta_gamma()
            self.beta, self.gamma_t = beta.float().clone(), gamma.float().t().contiguous()

    def factors(self, x: Tensor, scratch: Scratch) -> Tensor:
        """What to multiply x with: (P, C) float32 -> (P, C), in scratch memory."""
        squares, norm = scratch("squares", *x.shape), scratch("norm", *x.shape)
        torch.mul(x, x, out=squares)
        torch.addmm(self.beta, squares, self.gamma_t, out=norm)
        return norm.sqrt_() if self.inverse else norm.rsqrt_()

    def apply_(self, x: Tensor, scratch: Scratch) -> None:
        """Replace x (P, C), of any floating type, by its normalization; float32 inside."""
        for start in range(0, len(x), ROWS):
            rows = x[start : start + ROWS]
            rows.copy_(rows.float() * self.factors(rows.float(), scratch))
