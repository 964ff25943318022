"""Settings of the training objective: the section `loss`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jahp_pl.config.checks import require


@dataclass
class LossConfig:
    """Training objective R + lmbda * D, with R in bits per pixel."""

    distortion: Literal["mse", "ms_ssim"] = "mse"
    """D: 255^2 * MSE of images in [0, 1], or 1 - MS-SSIM."""
    lmbda: float = 0.0130
    """lambda, the weight of D: a larger value gives better pictures and larger files. Published values for mse: .0018
    .0035 .0067 .0130 .0250 .0483 .0932 .1800; for ms_ssim: 2.40 4.58 8.73 16.64 31.73 60.50 115.37 220.00. In a
    variable-rate model (model.num_levels > 1), the lambda of the lowest level."""
    lmbda_max: float | None = None
    """lambda of the highest level of a variable-rate model; the lambdas of the other levels are evenly spaced between
    on a logarithmic scale. null for a single-rate model."""
    level_weighting: float = 0.6
    """Exponent p of the weight (lambda_middle / lambda)^p that a crop has in the loss of a variable-rate model. Rates
    grow roughly as lambda^0.6, so at 0.6 a relative change in rate counts the same at every level; at 0 the highest
    levels dominate."""

    def __post_init__(self) -> None:
        require(0 < self.lmbda < math.inf, "loss.lmbda", self.lmbda, "must be positive and finite")
        require(
            self.lmbda_max is None or self.lmbda < self.lmbda_max < math.inf,
            "loss.lmbda_max",
            self.lmbda_max,
            "must be finite and larger than loss.lmbda, the lambda of the lowest level",
        )
        require(0 <= self.level_weighting <= 2, "loss.level_weighting", self.level_weighting, "must be from 0 to 2")

    @property
    def lmbda_ratio(self) -> float:
        """Ratio of the largest lambda to the smallest; 1 for a single-rate model."""
        return 1.0 if self.lmbda_max is None else self.lmbda_max / self.lmbda

    @property
    def lmbda_middle(self) -> float:
        """Geometric mean of the smallest and the largest lambda."""
        return self.lmbda * math.sqrt(self.lmbda_ratio)

    def lmbda_at(self, level_share: float) -> float:
        """Return the lambda of a level, given its place between the lowest level (0) and the highest (1)."""
        return self.lmbda * math.pow(self.lmbda_ratio, level_share)

    def objective_at(self, level_share: float) -> LossConfig:
        """Return the single-rate objective of a level; argument as in `lmbda_at`."""
        return LossConfig(self.distortion, self.lmbda_at(level_share))
