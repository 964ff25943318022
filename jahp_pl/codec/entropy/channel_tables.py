"""Codes integers under the tables of the prior, p(z_hat) or p(y_hat) of `factorized`: one table of masses per channel.

`prior_tables` computes them from a trained model; here they are given. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from jahp_pl.codec.arrays import Float64Array, IntArray
from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.codec.entropy.range_coder import MASS_BITS, ChannelTable, Reader, Writer
from jahp_pl.codec.entropy.table_checks import checked_table

TABLE_LIMIT = 2**12
"""Limit of the search for the tails of a channel's density, which covers the integers from -4096 to 4096."""


class ChannelTables:
    """Coder of integers (C, h, w), channel by channel, with one table per channel.

    Args:
        num_channels: C.
        stored: tables that `PriorTables` computed, see `tables_to_store`; float64.

    Raises:
        UnusableModelError: if `stored` does not fit the channels.
    """

    def __init__(self, num_channels: int, stored: Mapping[str, Float64Array]) -> None:
        sizes = checked_table(stored, "sizes", num_channels)
        lowest = checked_table(stored, "lowest", num_channels, signed=True)
        if sizes.min() < 2 or sizes.sum() >= 2**31 or np.abs(lowest).max() > 2 * TABLE_LIMIT:
            raise UnusableModelError(
                "tables of the prior: their sizes or first symbols are invalid; export the model again"
            )
        bounds = np.cumsum(sizes.astype(np.int64))
        masses = np.split(checked_table(stored, "masses", int(bounds[-1])), bounds[:-1])
        sums = [float(one.sum()) for one in masses]
        if min(sums) < 1:
            raise UnusableModelError("tables of the prior: a channel has no mass; export the model again")
        if max(sums) > 2.0 ** (MASS_BITS + 1):
            raise UnusableModelError("tables of the prior: a channel has too much mass; export the model again")
        self.tables = [ChannelTable(int(low), one) for low, one in zip(lowest, masses, strict=True)]

    def tables_to_store(self) -> dict[str, Float64Array]:
        """Return the tables to store with the weights, in float64; the masses of all channels are concatenated."""
        return {
            "lowest": np.array([table.lowest for table in self.tables], dtype=np.float64),
            "sizes": np.array([len(table.masses) for table in self.tables], dtype=np.float64),
            "masses": np.concatenate([table.masses for table in self.tables]),
        }

    def write_channels(self, writer: Writer, symbols: IntArray) -> None:
        """Append integers (C, h, w), channel by channel."""
        for channel, table in zip(symbols.reshape(len(symbols), -1), self.tables, strict=True):
            writer.write_channel(channel, table)

    def read_channels(self, reader: Reader, height: int, width: int) -> IntArray:
        """Read the next integers, (C, height, width).

        Raises:
            BitstreamError: if the payload cannot have been written under these tables.
        """
        channels = [reader.read_channel(height * width, table) for table in self.tables]
        return np.stack(channels).reshape(len(channels), height, width)

    def fingerprint_arrays(self) -> Iterator[Float64Array]:
        """Yield everything that determines the probabilities, for the fingerprint."""
        yield self.tables_to_store()["lowest"]
        yield from (table.masses for table in self.tables)
