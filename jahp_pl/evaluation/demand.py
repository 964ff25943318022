"""How many crops a second a GPU can take in training, as far as arithmetic tells."""

from __future__ import annotations

from typing import NamedTuple

from jahp_pl.config import Config
from jahp_pl.training.speed import count_flops

H200_FLOPS = 989e12
"""Dense bfloat16 per second, by NVIDIA's data sheet; sparse matrices would be twice that."""
UTILIZATION = 0.3
"""Share of it that training convolutions reach: assumed, not measured."""


class Demand(NamedTuple):
    """Of one GPU."""

    flops_per_crop: float
    """Floating-point operations of one training step, per crop: convolutions and matrix products, both ways."""
    crops_per_second: float
    """At `UTILIZATION` of an H200."""


def demand(config: Config) -> Demand:
    """Count the operations of one crop through the model and back."""
    flops = count_flops(config)
    return Demand(flops, UTILIZATION * H200_FLOPS / flops)
