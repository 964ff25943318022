"""Finds settings that change the result of a run and differ from those in its checkpoint.

The model, the loss, the optimizer, the seed and the selection of data change the result. Durations, devices, precision,
logging, coding, caches and timeouts do not: a run may continue with other values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jahp_pl.config.experiment import Config, to_dict
from jahp_pl.config.former_names import with_current_names

_SECTIONS = ("model", "loss", "data", "optim")
_HARMLESS = ("data.num_workers", "data.timeout", "data.cache_dir", "data.cache_bytes", "data.max_broken_share")


class Change(NamedTuple):
    """A setting whose value differs from the checkpoint."""

    key: str
    """Dotted name."""
    before: Any
    """The value in the checkpoint; the default if the checkpoint lacks the setting."""
    now: Any

    def __str__(self) -> str:
        return f"{self.key}={self.before} instead of {self.now}"


def find_changes(stored: Mapping[str, Any], config: Config) -> list[Change]:
    """List the settings that change the result and differ from a checkpoint's, in the order of the configuration.

    Args:
        stored: settings in the checkpoint, from `to_dict` of any version; one that it lacks counts as the default.
        config: the settings of this run.
    """
    before, now = _flat(with_current_names(stored)), _flat(to_dict(config))
    defaults = _flat(to_dict(Config()))
    pairs = ((key, before.get(key, defaults[key]), value) for key, value in now.items())
    return [Change(*pair) for pair in pairs if pair[1] != pair[2]]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {"seed": values["seed"]} if "seed" in values else {}
    for section in _SECTIONS:
        flat |= {f"{section}.{name}": value for name, value in values.get(section, {}).items()}
    return {key: value for key, value in flat.items() if key not in _HARMLESS}
