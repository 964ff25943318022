"""Applies GDN to matrices of positions by channels, in preallocated memory.

The module `layers.GDN` allocates four tensors of the size of its input; for large images, the system then spends more
time on providing their memory pages than the arithmetic takes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jahp_pl.codec.packed_weights import multiply, pack_weight
from jahp_pl.layers import GDN

ROWS = 4096
"""Positions normalized in place at a time: their squares and norms stay within a cache."""


class Scratch:
    """Named float32 buffers shared by the strips of one call; a buffer keeps its previous content.

    Args:
        device: device of the buffers.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return the buffer of that name in the given shape, without clearing it."""
        size = math.prod(shape)
        buffer = self._buffers.pop(name, None)
        if buffer is None or buffer.numel() < size:
            del buffer  # frees it before the larger one is allocated
            buffer = torch.empty(size, dtype=torch.float32, device=self.device)
        self._buffers[name] = buffer
        return buffer[:size].view(shape)


class MatrixGDN:
    """GDN or IGDN (see `layers.GDN`) with beta and gamma computed once.

    Args:
        gdn: trained layer; its parameters are copied.
    """

    def __init__(self, gdn: GDN) -> None:
        self.inverse = gdn.inverse
        with torch.no_grad():
            beta, gamma = gdn.beta_gamma()
            self.beta, self.gamma_t = beta.float().clone(), gamma.float().t().contiguous()
        self._packed = pack_weight(self.gamma_t)

    def factors(self, x: Tensor, scratch: Scratch) -> Tensor:
        """Compute the factors by which x is to be multiplied, (P, C) float32 -> (P, C)."""
        squares = torch.mul(x, x, out=scratch("squares", *x.shape))
        norm = multiply(squares, self.gamma_t, self._packed, self.beta)
        return norm.sqrt_() if self.inverse else norm.rsqrt_()

    def apply_(self, x: Tensor, scratch: Scratch) -> None:
        """Normalize x (P, C), of any floating type, in place; computed in float32."""
        for start in range(0, len(x), ROWS):
            rows = x[start : start + ROWS]
            rows.copy_(rows.float() * self.factors(rows.float(), scratch))
