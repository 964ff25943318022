"""Computes the tables of the prior, p(z_hat) or p(y_hat) of `factorized`, from a trained model: one table per channel.

`channel_tables` codes with them, without torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from jahp_pl.codec.arrays import Float64Array
from jahp_pl.codec.entropy.channel_tables import TABLE_LIMIT, ChannelTables
from jahp_pl.codec.entropy.range_coder import MASS_BITS, Reader, Writer
from jahp_pl.entropy_model import FactorizedDensity

TABLE_MARGIN = 32
"""Number of symbols that a table holds beyond each tail. Each costs 24 bits, whereas an escape costs 56; together they
make every other symbol 6e-6 bits longer."""


class PriorTables(ChannelTables):
    """`ChannelTables` computed from a trained density; writes and reads tensors.

    Args:
        prior: trained factorized density on any device; the tables are always computed on the CPU.
        stored: `tables_to_store()` of another instance for the same density; None computes the tables.

    Raises:
        UnusableModelError: if `stored` does not fit the density.
    """

    def __init__(self, prior: FactorizedDensity, stored: Mapping[str, Float64Array] | None = None) -> None:
        super().__init__(prior.num_channels, _compute_tables(copy.deepcopy(prior).cpu()) if stored is None else stored)

    def write(self, writer: Writer, symbols: Tensor) -> None:
        """Append integers (C, h, w) int32, channel by channel."""
        self.write_channels(writer, symbols.contiguous().numpy())

    def read(self, reader: Reader, height: int, width: int) -> Tensor:
        """Read the next integers, (C, height, width) int32.

        Raises:
            BitstreamError: if the payload cannot have been written under these tables.
        """
        return torch.from_numpy(self.read_channels(reader, height, width))


def _compute_tables(prior: FactorizedDensity) -> dict[str, Float64Array]:
    """Compute all tables of a density, in float64."""
    lowest, masses = _prior_masses(prior)
    sizes = [float(len(one)) for one in masses]
    return {"lowest": np.array(lowest, dtype=np.float64), "sizes": np.array(sizes), "masses": torch.cat(masses).numpy()}


def _prior_masses(prior: FactorizedDensity) -> tuple[list[int], list[Tensor]]:
    """Return, for each channel, the first symbol of its table, and its masses, which end with the escape's."""
    low, high = _tails(prior)
    lowest, highest = (low - TABLE_MARGIN).tolist(), (high + TABLE_MARGIN).tolist()
    edges = [torch.arange(first, last + 2).double() - 0.5 for first, last in zip(lowest, highest, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(edges, batch_first=True).unsqueeze(1)  # (C, 1, longest)
    with torch.no_grad():
        cumulative = torch.sigmoid(prior.cumulative_logits(padded)).squeeze(1)
    masses = []
    for row, edge in zip(cumulative, edges, strict=True):
        inside = torch.round(row[: len(edge)].diff() * 2.0**MASS_BITS)
        masses.append(torch.cat([inside, (2.0**MASS_BITS - inside.sum()).clamp(min=1).unsqueeze(0)]))
    return lowest, masses


def _tails(prior: FactorizedDensity) -> tuple[Tensor, Tensor]:
    """Find by bisection of F, for each channel, the integers beyond which less than 2^-24 of the mass lies on either
    side."""
    target = math.log(2.0) * MASS_BITS
    found = []
    for sign in (-1.0, 1.0):
        near = torch.full((prior.num_channels, 1, 1), -sign * TABLE_LIMIT, dtype=torch.float64)
        far = -near
        for _ in range(40):
            middle = (near + far) / 2
            with torch.no_grad():
                inside = sign * prior.cumulative_logits(middle) < target
            near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
        found.append(torch.round(far.flatten()).long())
    return found[0], torch.maximum(found[1], found[0])
