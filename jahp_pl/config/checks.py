"""Checks settings, with one-line errors that name the setting and the remedy."""

from __future__ import annotations

from jahp_pl.errors import JahpError
from jahp_pl.text import shortened


class ConfigError(JahpError, ValueError):
    """Error that a setting is unusable; the message is one line that names the setting and the remedy."""


def require(condition: bool, key: str, value: object, remedy: str) -> None:
    """Raise a one-line `ConfigError` unless the condition holds.

    Args:
        condition: whether the value is usable.
        key: dotted name of the setting.
        value: value to name in the message; a long one is cut.
        remedy: what the value must be, to end the message with.

    Raises:
        ConfigError: if the condition does not hold.
    """
    if not condition:
        raise ConfigError(f"{key}={shortened(value)}: {remedy}")


def require_type(value: object, kind: type, remedy: str) -> None:
    """Raise a one-line `ConfigError` unless a program passed a configuration of the right type.

    Args:
        value: value that the program passed.
        kind: dataclass that is needed.
        remedy: how to get one, to end the message with.

    Raises:
        ConfigError: if the value has another type.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"config: must be a {kind.__name__}, not {type(value).__name__}; {remedy}")
