"""Translates former names of settings, so that older files and commands still work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMER_NAMES = {"model.rung": "model.entropy_model"}
"""Maps the former dotted name of each renamed setting to the current one, in the same section."""


def current_name(key: str) -> str:
    """Return the current dotted name of a setting, which may be given by its former one."""
    return FORMER_NAMES.get(key, key)


def with_current_names(values: Mapping[Any, Any], section: str = "") -> dict[Any, Any]:
    """Copy settings, with current names in place of former ones, also in interpolations such as `${model.rung}`.

    A former name remains if the current one is there, too, so that the reader can refuse it.

    Args:
        values: settings of the section by name; without a section, mappings of settings by section, or settings by
            dotted name. Other content is kept.
        section: name of the section.
    """
    prefix = f"{section}." if section else ""
    renamed = {}
    for key, value in values.items():
        current = current_name(f"{prefix}{key}").removeprefix(prefix) if isinstance(key, str) else key
        is_section = not section and isinstance(value, Mapping)
        renamed[key if current in values else current] = (
            with_current_names(value, str(key)) if is_section else _with_current_references(value)
        )
    return renamed


def _with_current_references(value: Any) -> Any:
    """Replace former names in the interpolations of a text, or in those of the texts in a list."""
    if isinstance(value, list):
        return [_with_current_references(one) if isinstance(one, str) else one for one in value]
    if isinstance(value, str):
        for former, current in FORMER_NAMES.items():
            value = value.replace(f"${{{former}}}", f"${{{current}}}")
    return value
