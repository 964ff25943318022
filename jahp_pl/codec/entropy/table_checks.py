"""Weights and tables that a model is frozen from, which may come from anywhere: checked before they are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from jahp_pl.codec.entropy.fixed_point import FreezeError


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


def check_halves(table: Tensor, lengths: Sequence[int], bits: int) -> None:
    """Check upper halves of cumulatives, 2^bits F, one behind the other: each begins at 1/2, rises, and ends by 1.

    Where one is flat, the last bit of another machine's erf may put a number a step below the one before.

    Raises:
        FreezeError: they are no cumulatives.
    """
    for half in torch.split(table, list(lengths)):
        is_within = 2.0 ** (bits - 1) <= float(half.min()) and float(half.max()) <= 2.0**bits
        if not is_within or not bool((half.diff() >= -1).all()):
            raise FreezeError("table cumulative: does not rise from 1/2 to 1; export the model again")


def check_weights(table: Tensor, bits: int) -> None:
    """Check 2^bits e^-x: it begins at 1, which it never exceeds.

    Raises:
        FreezeError: otherwise.
    """
    if float(table[0]) != 2.0**bits or float(table.max()) > 2.0**bits:
        raise FreezeError("table exponential: does not fall from 1; export the model again")


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


def below(prefix: str, tables: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Those whose name starts with the prefix, without it."""
    if tables is None:
        return None
    return {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}


def check_finite(model: nn.Module) -> None:
    """Check that every weight is a number.

    Raises:
        FreezeError: one is not; it would make rubbish of pictures, or of tables.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FreezeError(f"{name}: holds numbers that are not finite; the weights are damaged or have diverged")
