"""Settings of a caller that must not affect the codec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def changed(setter: Callable[..., None], value: object, before: object) -> Iterator[None]:
    """Set another value within the block, and restore the one before."""
    setter(value)
    try:
        yield
    finally:
        setter(before)
