"""Channel-wise gains that give one model many rates (Cui et al. 2021, "Asymmetric gained deep image compression").

A level s from 0 to S - 1 picks a point of the trade-off between rate and distortion. Each channel of the latents is
scaled before rounding and scaled back before the reconstruction:

    y     = g_a(x) exp(gain[s])                   quantized more finely where the gain is larger
    x_hat = g_s(y_hat exp(-gain[s] + offset[s]))  the inverse, but for a learned offset

Between two levels both tables are linear in s, so the gains are geometric there. The entropy model sees the scaled
latents only, which are integers once they are rounded: everything that has to be exact stays as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jahp_pl.config import LossConfig


class LevelGains(nn.Module):
    """Gains before rounding and after it, a row of M log-gains for each level.

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
        """S."""
        return len(self.gain)

    @property
    def middle(self) -> float:
        """The level halfway, whose gains start at 1."""
        return (self.num_levels - 1) / 2

    @torch.no_grad()
    def start(self, loss: LossConfig) -> None:
        """Set the gains to what high-rate theory says: the best quantization step shrinks with the square root of
        lambda, so a gain starts at sqrt(lambda_s / lambda_middle)."""
        shares = torch.linspace(-0.5, 0.5, self.num_levels)
        self.gain.copy_((0.5 * math.log(loss.lmbda_ratio) * shares)[:, None].expand_as(self.gain))
        self.offset.zero_()

    def before_rounding(self, level: Tensor) -> Tensor:
        """exp(gain) at each level: (B,) from 0 to S - 1 -> (B, M, 1, 1)."""
        return torch.exp(self._between(self.gain, level))

    def after_rounding(self, level: Tensor) -> Tensor:
        """exp(-gain + offset) at each level: (B,) from 0 to S - 1 -> (B, M, 1, 1)."""
        return torch.exp(self._between(self.offset - self.gain, level))

    def _between(self, table: Tensor, level: Tensor) -> Tensor:
        """Rows of `table` (S, M), interpolated: (B,) -> (B, M, 1, 1)."""
        below = level.floor().clamp(0, self.num_levels - 2).long()
        share = (level - below)[:, None]
        return torch.lerp(table[below], table[below + 1], share)[:, :, None, None]
