"""Names of the tables that a codec is built from, for the prior and for the latents. No torch.

An export stores them under these names with the prefix `tables.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

PRIOR_PREFIX, LATENTS_PREFIX = "prior.", "latents."
"""Prefixes of table names in `Codec.tables`."""

Table = TypeVar("Table")


def join_tables(prior: Mapping[str, Table], latents: Mapping[str, Table]) -> dict[str, Table]:
    """Join the tables of the prior and of the latents, under prefixed names."""
    return {
        **{f"{PRIOR_PREFIX}{name}": table for name, table in prior.items()},
        **{f"{LATENTS_PREFIX}{name}": table for name, table in latents.items()},
    }


def tables_with_prefix(prefix: str, tables: Mapping[str, Table]) -> dict[str, Table]:
    """Select the tables whose names start with a prefix, and remove it from their names."""
    return {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}
