"""Describes a density to codecs without torch: the layout of its raw outputs, and its bounds."""

from __future__ import annotations

from typing import NamedTuple

from jahp_pl.config import DensityName, ModelConfig


class Bounds(NamedTuple):
    """Bounds of a family of densities, see `distributions.Density`."""

    scale_min: float
    """Smallest sigma."""
    reach: float
    """Half-width of the codec's coding window, in scales."""
    extent: float
    """Half-width of the codec's table of the cumulative F, in scales."""


BOUNDS: dict[DensityName, Bounds] = {
    "gaussian": Bounds(scale_min=0.11, reach=4.2, extent=5.5),
    "laplace": Bounds(scale_min=0.041, reach=10.4, extent=18.0),
    "logistic": Bounds(scale_min=0.039, reach=11.1, extent=18.0),
}


class DensityLayout:
    """Layout of the raw outputs that parametrize the densities of the M latents at one position.

    The raw outputs come in blocks of K M numbers: scales, then means (not for `scale_hyperprior`), then mixture logits
    (if K > 1).

    Args:
        config: architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.family = config.likelihood
        self.num_components = config.num_components
        self.has_means = config.entropy_model != "scale_hyperprior"

    @property
    def bounds(self) -> Bounds:
        """Bounds of the family."""
        return BOUNDS[self.family]

    @property
    def num_blocks(self) -> int:
        """Number of blocks, from 1 to 3: scales, means if the model has them, logits if K > 1."""
        return 1 + self.has_means + (self.num_components > 1)
