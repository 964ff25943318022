"""Describes how much each latent varies, from which the entropy model starts."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

SMALLEST_SCALE = 0.3
"""Smallest initial scale; latents that vary less than this all round to zero."""
MEAN_MAGNITUDE = 0.7
"""Approximate mean of |y| at a standard deviation of one: 0.71 for Laplacian and 0.80 for Gaussian latents."""


class LatentSpread(NamedTuple):
    """Statistics of the latents y over all images and positions."""

    std: Tensor
    """(M,): standard deviation of each channel."""

    @property
    def scales(self) -> Tensor:
        """Initial scale sigma of each channel, (M,): its standard deviation, but at least `SMALLEST_SCALE`."""
        return self.std.clamp(min=SMALLEST_SCALE)

    @property
    def channels(self) -> list[int]:
        """Channels in order of decreasing standard deviation."""
        order: list[int] = self.std.argsort(descending=True, stable=True).tolist()
        return order

    def num_above(self, std: float) -> int:
        """Return the number of channels with at least this standard deviation."""
        return int((self.std >= std).sum())
