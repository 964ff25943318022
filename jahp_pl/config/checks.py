"""Checks settings, with one-line errors that name the setting and the remedy."""

from __future__ import annotations

from jahp_pl.errors import JahpError


class ConfigError(JahpError, ValueError):
    """An unusable setting; the message is one line that names the setting and the remedy."""


def require(condition: bool, key: str, value: object, remedy: str) -> None:
    """Raise a one-line `ConfigError` unless the condition holds.

    Args:
        condition: whether the value is usable.
        key: dotted name of the setting.
        value: the unusable value.
        remedy: what the value must be, for the message.
    """
    if not condition:
        raise ConfigError(f"{key}={value}: {remedy}")


def require_type(value: object, kind: type, remedy: str) -> None:
    """Raise a one-line `ConfigError` unless a value is of the type of configuration that a function takes.

    Args:
        value: what a program passed.
        kind: the dataclass that is needed.
        remedy: how to get one, for the message.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"config: must be a {kind.__name__}, not {type(value).__name__}; {remedy}")
