"""Settings of a caller that may not matter to the codec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def changed(setter: Callable[..., None], value: object, before: object) -> Iterator[None]:
    """Another value while this holds."""
    setter(value)
    try:
        yield
    finally:
        setter(before)
