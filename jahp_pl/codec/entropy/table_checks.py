"""Tables that a model is frozen with, which may come from anywhere: checked before they are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jahp_pl.codec.entropy.freezing import FloatArray, FreezeError


def checked_table(frozen: Mapping[str, FloatArray], name: str, size: int, signed: bool = False) -> FloatArray:
    """A table that was taken along, if it can be one.

    Raises:
        FreezeError: missing, of another size or type, not finite, or negative where that has no meaning.
    """
    table = frozen.get(name)
    if table is None or table.shape != (size,) or table.dtype != np.float64:
        raise FreezeError(f"table {name}: missing or not {size} numbers in float64; export the model again")
    if not np.isfinite(table).all() or (not signed and float(table.min()) < 0):
        raise FreezeError(f"table {name}: holds numbers that no frozen model has; export the model again")
    return table


def check_halves(table: FloatArray, lengths: Sequence[int], bits: int) -> None:
    """Check upper halves of cumulatives, 2^bits F, one behind the other: each begins at 1/2, rises, and ends by 1.

    Where one is flat, the last bit of another machine's erf may put a number a step below the one before.

    Raises:
        FreezeError: they are no cumulatives.
    """
    rises = np.diff(table) >= -1
    rises[np.cumsum(lengths)[:-1] - 1] = True  # from one half to the next
    if not (2.0 ** (bits - 1) <= float(table.min()) and float(table.max()) <= 2.0**bits and rises.all()):
        raise FreezeError("table cumulative: does not rise from 1/2 to 1; export the model again")


def check_weights(table: FloatArray, bits: int) -> None:
    """Check 2^bits e^-x: it begins at 1, which it never exceeds.

    Raises:
        FreezeError: otherwise.
    """
    if float(table[0]) != 2.0**bits or float(table.max()) > 2.0**bits:
        raise FreezeError("table exponential: does not fall from 1; export the model again")


def rising_tables(frozen: Mapping[str, FloatArray], sizes: Mapping[str, int]) -> tuple[FloatArray, ...]:
    """Tables whose numbers rise from above 0, by name and size.

    Raises:
        FreezeError: as `checked_table`, or not rising.
    """
    tables = tuple(checked_table(frozen, name, size) for name, size in sizes.items())
    for name, table in zip(sizes, tables, strict=True):
        if float(table[0]) <= 0 or float(table[-1]) > 2.0**31 or not (np.diff(table) > 0).all():
            raise FreezeError(f"table {name}: does not rise from above 0; export the model again")
    return tables
