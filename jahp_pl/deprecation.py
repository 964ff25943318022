"""Keeps former names of methods for one release."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(former: str, method: Callable[P, R]) -> Callable[P, R]:
    """Return the method that a class keeps under a former name: it warns, and calls the method by its current name.

    Args:
        former: former name.
        method: the method under its current name.
    """
    current = method.__name__

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        warnings.warn(f"{former}() is now {current}(); the next release drops {former}()", DeprecationWarning, 2)
        result: R = getattr(args[0], current)(*args[1:], **kwargs)  # not `method`, which a subclass may override
        return result

    call.__name__, call.__doc__ = former, f"Call `{current}`, the current name of this method."
    return call
