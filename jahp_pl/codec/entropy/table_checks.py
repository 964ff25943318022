"""Validates tables from untrusted sources before a codec uses them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jahp_pl.codec.arrays import Float64Array
from jahp_pl.codec.entropy.integer_layers import UnusableModelError


def checked_table(stored: Mapping[str, Float64Array], name: str, size: int, signed: bool = False) -> Float64Array:
    """Check a stored table of `size` numbers, and return it.

    Raises:
        UnusableModelError: if it is missing, has another size or dtype, is not finite, or is negative without `signed`.
    """
    table = stored.get(name)
    if table is None or table.shape != (size,) or table.dtype != np.float64:
        raise UnusableModelError(f"table {name}: is missing or not {size} numbers in float64; export the model again")
    if not np.isfinite(table).all() or (not signed and float(table.min()) < 0):
        raise UnusableModelError(f"table {name}: has numbers that are negative or not finite; export the model again")
    return table


def check_upper_halves(table: Float64Array, lengths: Sequence[int], bits: int) -> None:
    """Check the upper halves of cumulatives F, which are scaled by 2^bits and concatenated.

    Each must start at 1/2 or more, rise, and end at 1 or less. In flat parts, a number may be one step smaller than the
    one before, because of the last bit of another machine's erf.

    Args:
        table: the upper halves, one after another.
        lengths: number of entries of each.
        bits: exponent of the scale 2^bits.

    Raises:
        UnusableModelError: if they are not cumulatives.
    """
    rises = np.diff(table) >= -1
    rises[np.cumsum(lengths)[:-1] - 1] = True  # from one half to the next
    if not (2.0 ** (bits - 1) <= float(table.min()) and float(table.max()) <= 2.0**bits and rises.all()):
        raise UnusableModelError("table cumulative: does not rise from 1/2 to 1; export the model again")


def check_exponential(table: Float64Array, bits: int) -> None:
    """Check that a table of 2^bits e^-x starts with 2^bits and has no larger number.

    Raises:
        UnusableModelError: if it does not.
    """
    if float(table[0]) != 2.0**bits or float(table.max()) > 2.0**bits:
        raise UnusableModelError("table exponential: does not fall from 1; export the model again")


def checked_rising_tables(stored: Mapping[str, Float64Array], sizes: Mapping[str, int]) -> tuple[Float64Array, ...]:
    """Check stored tables, given their sizes by name, whose numbers must rise from above 0; return them.

    Raises:
        UnusableModelError: if a table fails `checked_table` or does not rise.
    """
    tables = tuple(checked_table(stored, name, size) for name, size in sizes.items())
    for name, table in zip(sizes, tables, strict=True):
        if float(table[0]) <= 0 or float(table[-1]) > 2.0**31 or not (np.diff(table) > 0).all():
            raise UnusableModelError(f"table {name}: does not rise from above 0; export the model again")
    return tables
