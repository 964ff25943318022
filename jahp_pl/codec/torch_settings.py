"""Ensures full float32 precision of matrix products, whatever the caller has set in torch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

from jahp_pl.errors import JahpError

BACKENDS = ("cuda", "mkldnn")
"""Backends of torch with their own setting for the precision of matrix products."""
TRIES = 3
"""Maximum number of attempts at a call during which another thread changes the precision."""
_FULL = "ieee"
"""Full precision in the newer API."""

P = ParamSpec("P")
T = TypeVar("T")


class PrecisionError(JahpError, RuntimeError):
    """A change of torch's float32 matmul precision by another thread while this one needed full precision."""


class MatmulPrecision:
    """torch's float32 matmul precision: full while any thread holds it, then restored.

    The setting is global to the process. Threads that code at the same time hold it together, so that none restores it
    while another is working. A change by another thread is detected, and stays in effect once all are done.

    Since torch 2.9 there are two APIs: the older one sets all backends, the newer one has a value per backend, where
    "none" inherits from the backend's parent setting and finally from the global one. Reading returns the effective
    value.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_holders = self._num_breaches = 0
        self._legacy = "highest"
        self._own: dict[str, str] = {}

    def hold(self) -> int:
        """Enable full precision, and return the argument for `release`."""
        with self._lock:
            self._num_holders += 1
            if self._num_holders == 1:
                self._enable_full()
            elif not _is_full():
                self._num_breaches += 1
                self._enable_full()
            return self._num_breaches

    def release(self, held: int) -> bool:
        """End a `hold`; the last one restores the caller's setting. Return whether precision was full throughout.

        Args:
            held: the result of `hold`.
        """
        with self._lock:
            self._num_holders -= 1
            is_full = _is_full()
            if not is_full:
                self._num_breaches += 1
            was_full = self._num_breaches == held
            if self._num_holders == 0:
                self._restore(is_full)
            elif not is_full:
                self._enable_full()
            return was_full

    def _enable_full(self) -> None:
        self._own = {backend: _own_setting(backend, "matmul") for backend in BACKENDS} if _has_newer_api() else {}
        self._legacy = _legacy_setting()
        torch.set_float32_matmul_precision("highest")  # sets both APIs

    def _restore(self, is_full: bool) -> None:
        if is_full:
            torch.set_float32_matmul_precision(self._legacy)
            for backend, value in self._own.items():
                _set(backend, "matmul", value)
            return
        for backend, value in self._own.items():
            if _get(backend, "matmul") == _FULL:  # otherwise another thread has set it
                _set(backend, "matmul", value)


def _has_newer_api() -> bool:
    return hasattr(torch._C, "_get_fp32_precision_getter")


def _get(backend: str, operation: str) -> str:
    return str(torch._C._get_fp32_precision_getter(backend, operation))


def _set(backend: str, operation: str, value: str) -> None:
    torch._C._set_fp32_precision_setter(backend, operation, value)


def _own_setting(backend: str, operation: str) -> str:
    """Return the setting of a backend itself: "none" if it inherits its value. Reading shows only the effective value,
    so the parent is changed for a moment to see whether the value follows."""
    parent = (backend, "all") if operation != "all" else ("generic", "all")
    before = _own_setting(*parent) if parent[0] != "generic" else _get(*parent)
    now = _get(backend, operation)
    _set(*parent, _FULL if now != _FULL else "none")  # neither lowers the precision of other threads
    is_inherited = _get(backend, operation) != now
    _set(*parent, before)
    return "none" if is_inherited else now


def _legacy_setting() -> str:
    """Return the setting of the older API; "highest" if it is unreadable because the newer API contradicts it."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        pass
    for backend in BACKENDS:
        _set(backend, "matmul", _FULL)
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"


def _is_full() -> bool:
    if _has_newer_api():
        return all(_get(backend, "matmul") == _FULL for backend in BACKENDS)
    return torch.get_float32_matmul_precision() == "highest"


_MATMUL = MatmulPrecision()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute float32 matrix products of the block in full precision, without TF32, bfloat16 or autocast.

    Raises:
        PrecisionError: at the end, if another thread changed the precision; results may then be wrong.
    """
    held = _MATMUL.hold()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if not _MATMUL.release(held):  # replaces any error of the block, which this may have caused
            raise PrecisionError(
                "another thread changed torch's float32 matmul precision during the call; set it before coding "
                "begins, or code in a process of its own"
            )


def retry_if_precision_changed(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function without side effects: call it up to `TRIES` times while another thread changes the
    precision."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return function(*args, **kwargs)
            except PrecisionError:
                continue
        return function(*args, **kwargs)

    return wrapper
