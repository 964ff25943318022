"""Tables of the factorized density: p(z_hat), or p(y_hat) on the factorized rung."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from jahp_pl.codec.entropy.fixed_point import FreezeError
from jahp_pl.codec.entropy.range_coder import MASS_BITS, ChannelTable, Reader, Writer
from jahp_pl.codec.entropy.table_checks import checked_table
from jahp_pl.entropy_model import FactorizedDensity

TABLE_LIMIT = 2**12
"""The tails of a channel's density are searched for within +-4096."""
TABLE_MARGIN = 32
"""Symbols that a table holds beyond each tail. They cost 24 bits each, where an escape costs 56; together they take
6e-6 bits per symbol from the others."""


class PriorTables:
    """p(z_hat) (p(y_hat) on the factorized rung): one table per channel.

    Args:
        prior: trained factorized density on any device; the tables are always computed on the CPU.
        frozen: `frozen()` of another instance for the same density; None computes the tables.

    Raises:
        FreezeError: if `frozen` does not fit the density.
    """

    def __init__(self, prior: FactorizedDensity, frozen: Mapping[str, Tensor] | None = None) -> None:
        if frozen is None:
            self.lowest, self.masses = _prior_masses(copy.deepcopy(prior).cpu())
        else:
            sizes = checked_table(frozen, "sizes", prior.num_channels).long().tolist()
            self.lowest = checked_table(frozen, "lowest", prior.num_channels, signed=True).long().tolist()
            if min(sizes) < 2 or max(map(abs, self.lowest)) > 2 * TABLE_LIMIT:
                raise FreezeError("tables of the prior: are not those of a density; export the model again")
            self.masses = list(torch.split(checked_table(frozen, "masses", sum(sizes)), sizes))
            sums = [float(masses.sum()) for masses in self.masses]
            if min(sums) < 1:
                raise FreezeError("tables of the prior: a channel has no mass; export the model again")
            if max(sums) > 2.0 ** (MASS_BITS + 1):
                raise FreezeError("tables of the prior: a channel has too much mass; export the model again")
        self.tables = [ChannelTable(low, m.numpy()) for low, m in zip(self.lowest, self.masses, strict=True)]

    def frozen(self) -> dict[str, Tensor]:
        """Return the tables to be stored with the weights, in float64; the masses of all channels are concatenated."""
        sizes = torch.tensor([len(masses) for masses in self.masses]).double()
        return {"lowest": torch.tensor(self.lowest).double(), "sizes": sizes, "masses": torch.cat(self.masses)}

    def write(self, writer: Writer, symbols: Tensor) -> None:
        """Append symbols (C, h, w) int32, channel by channel."""
        for channel, table in zip(symbols.flatten(1).contiguous().numpy(), self.tables, strict=True):
            writer.write_channel(channel, table)

    def read(self, reader: Reader, height: int, width: int) -> Tensor:
        """Read the next symbols, (C, height, width) int32."""
        channels = [reader.read_channel(height * width, table) for table in self.tables]
        return torch.from_numpy(np.stack(channels)).view(len(channels), height, width)

    def tensors(self) -> Iterator[Tensor]:
        """Yield all tensors that determine the probabilities, for the fingerprint."""
        yield torch.tensor(self.lowest).double()
        yield from self.masses


def _prior_masses(prior: FactorizedDensity) -> tuple[list[int], list[Tensor]]:
    """Return the first symbol of each channel's table, and the masses, of which the last is the escape."""
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
    """Find by bisection of F, per channel, the integers outside which less than 2^-24 of the mass lies on either
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
