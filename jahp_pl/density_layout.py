"""What a codec has to know of a density beside its tables: the outputs it takes, and how far it reaches. No torch."""

from __future__ import annotations

from typing import NamedTuple

from jahp_pl.config import Family, ModelConfig


class Bounds(NamedTuple):
    """Where the unit bins of a density of scale 1 begin and end to matter."""

    scale_min: float
    """Smallest sigma. With it a unit bin around the mean holds all but 5.5e-6 of the mass, in every family: with the
    Gaussian's 0.11 a Laplace density could not leave less than 1 % outside, a floor of 0.015 bits per latent."""
    reach: float
    """Scales to either side of the mean that a window of the codec holds: beyond is about 2^-16, where an escape is as
    good."""
    extent: float
    """Scales to either side for which the codec tabulates F: beyond is less than 2^-25."""


BOUNDS: dict[Family, Bounds] = {
    "gaussian": Bounds(scale_min=0.11, reach=4.2, extent=5.5),
    "laplace": Bounds(scale_min=0.041, reach=10.4, extent=18.0),
    "logistic": Bounds(scale_min=0.039, reach=11.1, extent=18.0),
}


class DensityLayout:
    """The raw outputs that stand for the density of one latent.

    Those of one position are blocks of K M channels: scales, then means (but for the scale-only rung), then mixture
    logits (for K > 1).
    """

    def __init__(self, config: ModelConfig) -> None:
        self.family = config.likelihood
        self.num_components = config.num_components
        self.has_means = config.rung != "scale_hyperprior"

    @property
    def bounds(self) -> Bounds:
        """Those of the family."""
        return BOUNDS[self.family]

    @property
    def num_blocks(self) -> int:
        """Parameters per latent and component: scale, mean, logit, if they exist."""
        return 1 + self.has_means + (self.num_components > 1)
