"""Computes the tables of the latents, p(y_hat | raw entropy parameters), from a trained model, with exp and erf.

`window_tables` makes a table for each latent from them, without torch. The exp of another machine may round a value
differently, so these tables are stored with the weights (`tables_to_store`), and not computed again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.arrays import Float64Array, IntArray
from jahp_pl.codec.entropy.integer_layers import FRACTION_BITS
from jahp_pl.codec.entropy.range_coder import MASS_BITS
from jahp_pl.codec.entropy.window_tables import (
    NUM_EXPONENTIALS,
    NUM_SCALES,
    SCALE_BITS,
    SCALE_MAX,
    WEIGHT_BITS,
    WEIGHT_STEPS,
    WindowTables,
    extents,
    resolution_of,
)
from jahp_pl.distributions import density_of
from jahp_pl.entropy_model import ConditionalDensity


class LatentTables(WindowTables):
    """`WindowTables` computed from a trained density; mixtures are summed in torch.

    Args:
        density: density whose tables are computed or checked.
        num_latents: M.
        stored: `tables_to_store()` of another instance for the same density; None computes the tables.

    Raises:
        UnusableModelError: if `stored` does not fit the density.
    """

    def __init__(
        self, density: ConditionalDensity, num_latents: int, stored: Mapping[str, Float64Array] | None = None
    ) -> None:
        self.density = density
        super().__init__(density, num_latents, _compute_tables(density) if stored is None else stored)

    def _weighted_sums(self, starts: IntArray, width: int, weights: Float64Array) -> Float64Array:
        table = torch.from_numpy(self._masses).as_strided((len(self._masses) - width + 1, width), (1, 1))
        indices, factors = torch.from_numpy(starts), torch.from_numpy(weights)
        sums: Float64Array = F.embedding_bag(indices, table, per_sample_weights=factors, mode="sum").numpy()
        return sums


def _compute_tables(density: ConditionalDensity) -> dict[str, Float64Array]:
    """Compute all tables of a density, in float64."""
    scales, thresholds = _scales(density.bounds.scale_min)
    pieces = [
        density_of(density.family).cumulative(torch.arange(e + 1).double() * 2.0 ** -resolution_of(s) / s)
        for s, e in zip(scales.tolist(), extents(density, scales.tolist()), strict=True)
    ]
    steps = torch.arange(NUM_EXPONENTIALS).double() / WEIGHT_STEPS
    tables = {
        "scales": scales,
        "thresholds": thresholds,
        "cumulative": torch.round(torch.cat(pieces) * 2.0**MASS_BITS),  # 2^24 F(d 2^-r / sigma), d from 0 to the extent
        "exponential": torch.round(torch.exp(-steps) * 2.0**WEIGHT_BITS),
    }
    return {name: table.numpy() for name, table in tables.items()}


def _scales(smallest: float) -> tuple[Tensor, Tensor]:
    """Compute the scales, and the thresholds between them in steps of the raw outputs."""
    ratio = math.log(SCALE_MAX / smallest) / (NUM_SCALES - 1)
    logs = math.log(smallest) + ratio * torch.arange(NUM_SCALES).double()
    # Rounded to a grid, so that they do not depend on the last bit of this machine's exp.
    scales = torch.round(logs.exp() * 2.0**SCALE_BITS) * 2.0**-SCALE_BITS
    # The threshold is the geometric mean of two scales, which minimizes the rate lost.
    return scales, torch.round((logs[:-1] + ratio / 2).exp() * 2.0**FRACTION_BITS)
