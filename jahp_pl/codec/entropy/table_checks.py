"""Validates weights and tables from untrusted sources before a model is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from jahp_pl.codec.entropy.fixed_point import FreezeError


def checked_table(frozen: Mapping[str, Tensor], name: str, size: int, signed: bool = False) -> Tensor:
    """Return a stored table if it is plausible.

    Raises:
        FreezeError: if it is missing, has another size or dtype, is not finite, or is negative without `signed`.
    """
    table = frozen.get(name)
    if table is None or table.shape != (size,) or table.dtype != torch.float64:
        raise FreezeError(f"table {name}: is missing or not {size} numbers in float64; export the model again")
    if not bool(torch.isfinite(table).all()) or (not signed and float(table.min()) < 0):
        raise FreezeError(f"table {name}: has numbers that no frozen model has; export the model again")
    return table


def check_halves(table: Tensor, lengths: Sequence[int], bits: int) -> None:
    """Check concatenated upper halves of cumulatives, 2^bits F: each starts at 1/2 or more, rises, and ends at 1 or
    less.

    In flat parts, the last bit of another machine's erf may make a number one step smaller than the one before.

    Raises:
        FreezeError: if they are not cumulatives.
    """
    for half in torch.split(table, list(lengths)):
        is_within = 2.0 ** (bits - 1) <= float(half.min()) and float(half.max()) <= 2.0**bits
        if not is_within or not bool((half.diff() >= -1).all()):
            raise FreezeError("table cumulative: does not rise from 1/2 to 1; export the model again")


def check_weights(table: Tensor, bits: int) -> None:
    """Check a table of 2^bits e^-x: it starts at 2^bits, its maximum.

    Raises:
        FreezeError: if it does not.
    """
    if float(table[0]) != 2.0**bits or float(table.max()) > 2.0**bits:
        raise FreezeError("table exponential: does not fall from 1; export the model again")


def rising_tables(frozen: Mapping[str, Tensor], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Return tables, by name and size, whose numbers rise from above 0.

    Raises:
        FreezeError: if a table fails `checked_table` or does not rise.
    """
    tables = tuple(checked_table(frozen, name, size) for name, size in sizes.items())
    for name, table in zip(sizes, tables, strict=True):
        if float(table[0]) <= 0 or float(table[-1]) > 2.0**31 or not bool((table.diff() > 0).all()):
            raise FreezeError(f"table {name}: does not rise from above 0; export the model again")
    return tables


def with_prefix(prefix: str, tables: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Select the tables whose names start with the prefix, and remove the prefix."""
    if tables is None:
        return None
    return {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}


def check_finite(model: nn.Module) -> None:
    """Check that every weight is finite.

    Raises:
        FreezeError: if one is not; it would corrupt images or tables.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FreezeError(f"{name}: has numbers that are not finite; use weights of an earlier checkpoint")
