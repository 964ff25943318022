"""Names of the densities and networks from which a model can be built, including names that a program registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from jahp_pl.config.checks import ConfigError, require
from jahp_pl.text import shortened

Part = TypeVar("Part")

PARTS: dict[str, list[str]] = {
    "likelihood": ["gaussian", "laplace", "logistic"],
    "transform": ["gdn"],
    "hyper_transform": ["conv"],
    "entropy_network": ["conv"],
}
"""Valid names for these settings of a model. `distributions.register_density`, `transforms.register_transform`,
`hyperprior.register_hyper_transform` and `context.register_entropy_network` add names."""
BUILT_IN = {setting: tuple(names) for setting, names in PARTS.items()}
"""The package's own names in `PARTS`, which cannot be replaced."""


class UnknownPartError(ConfigError):
    """Error that a model needs a part that nothing has registered; the file that names it is intact."""


def check_part(setting: str, name: str) -> None:
    """Refuse a name that is not valid for a setting in `PARTS`.

    Raises:
        UnknownPartError: if no part of this name is registered.
    """
    if name not in PARTS[setting]:
        raise UnknownPartError(
            f"model.{setting}={shortened(name)}: must be one of {', '.join(PARTS[setting])}; for your own, import its "
            "module first: with the setting imports=[FILE.py] in `jahp train`, with --import FILE.py in other commands"
        )


def add_part(setting: str, name: str) -> None:
    """Add a valid name for a setting in `PARTS`.

    Raises:
        ConfigError: if the name is not a Python identifier, or is one of the package's own.
    """
    is_new = name not in BUILT_IN[setting]
    require(name.isidentifier() and is_new, f"model.{setting}", name, "must be an identifier that is not taken")
    if name not in PARTS[setting]:
        PARTS[setting].append(name)


def find_part(setting: str, name: str, parts: Mapping[str, Part]) -> Part:
    """Look up the part that a setting in `PARTS` names.

    Raises:
        ConfigError: if the part is not registered in this process.
    """
    if name not in parts:
        raise ConfigError(f"model.{setting}={name}: is not registered in this process; import its module first")
    return parts[name]
