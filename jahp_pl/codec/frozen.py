"""Tables that were made when a model was frozen and come back with its weights: checked before they are believed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jahp_pl.codec.fixed_point import FreezeError


def checked_table(frozen: Mapping[str, Tensor], name: str, size: int, signed: bool = False) -> Tensor:
    """A table that was taken along, if it can be one.

    Raises:
        FreezeError: missing, of another size or type, not finite, or negative where that has no meaning.
    """
    table = frozen.get(name)
    if table is None or table.shape != (size,) or table.dtype != torch.float64:
        raise FreezeError(f"table {name}: missing or not {size} numbers in float64; export the model again")
    if not bool(torch.isfinite(table).all()) or (not signed and float(table.min()) < 0):
        raise FreezeError(f"table {name}: holds numbers that no frozen model has; export the model again")
    return table


def rising_tables(frozen: Mapping[str, Tensor], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Tables whose numbers rise from above 0, by name and size.

    Raises:
        FreezeError: as `checked_table`, or not rising.
    """
    tables = tuple(checked_table(frozen, name, size) for name, size in sizes.items())
    for name, table in zip(sizes, tables, strict=True):
        if float(table[0]) <= 0 or float(table[-1]) > 2.0**31 or not bool((table.diff() > 0).all()):
            raise FreezeError(f"table {name}: does not rise from above 0; export the model again")
    return tables
