"""Channel-wise gains with which one model codes at many rates (Cui et al. 2021, "Asymmetric Gained Deep Image
Compression With Continuous Rate Adaptation").

A level s from 0 to S - 1 selects a trade-off between rate and distortion. Each channel of the latents is
scaled before rounding and scaled back before the reconstruction:

    y     = g_a(x) exp(gain[s])                   a larger gain means finer quantization
    x_hat = g_s(y_hat exp(-gain[s] + offset[s]))  the inverse, up to a learned offset

Between two levels both tables are linear in s, so the gains are geometric there. The entropy model only sees scaled
latents, which are integers once rounded, so the exact arithmetic of the codec is unaffected.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jahp_pl.config import LossConfig


class LevelGains(nn.Module):
    """Gains before and after rounding: M log-gains for each level.

    Args:
        num_levels: S, at least 2.
        num_latents: M.
    """

    def __init__(self, num_levels: int, num_latents: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(num_levels, num_latents))
        self.offset = nn.Parameter(torch.zeros(num_levels, num_latents))

    @property
    def num_levels(self) -> int:
        """S, the number of levels."""
        return len(self.gain)

    @property
    def middle(self) -> float:
        """The middle level, whose gains start at 1."""
        return (self.num_levels - 1) / 2

    @torch.no_grad()
    def initialize(self, loss: LossConfig) -> None:
        """Initialize the gains by high-rate theory.

        The best quantization step shrinks with the square root of lambda, so gain s starts at
        sqrt(lambda_s / lambda_middle).
        """
        # gain[s] = log(lambda_s / lambda_middle) / 2, with log lambda_s linear in s
        positions = torch.linspace(-0.5, 0.5, self.num_levels)
        self.gain.copy_((0.5 * math.log(loss.lmbda_ratio) * positions)[:, None].expand_as(self.gain))
        self.offset.zero_()

    def before_rounding(self, level: Tensor) -> Tensor:
        """Compute exp(gain) at each level: (B,) from 0 to S - 1 -> (B, M, 1, 1)."""
        return torch.exp(self._between(self.gain, level))

    def after_rounding(self, level: Tensor) -> Tensor:
        """Compute exp(-gain + offset) at each level: (B,) from 0 to S - 1 -> (B, M, 1, 1)."""
        return torch.exp(self._between(self.offset - self.gain, level))

    def _between(self, table: Tensor, level: Tensor) -> Tensor:
        """Interpolate the rows of `table` (S, M): (B,) -> (B, M, 1, 1)."""
        below = level.floor().clamp(0, self.num_levels - 2).long()
        fraction = (level - below)[:, None].to(table.dtype)  # whatever the default dtype
        return torch.lerp(table[below], table[below + 1], fraction)[:, :, None, None]
