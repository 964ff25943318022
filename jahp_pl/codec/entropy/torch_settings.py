"""Float32 matrix products that are float32 products, whatever the caller has asked torch for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

from jahp_pl.errors import JahpError

BACKENDS = ("cuda", "mkldnn")
TRIES = 3
"""How often a call is made whose products another thread has spoiled."""
_FULL = "ieee"

P = ParamSpec("P")
T = TypeVar("T")


class PrecisionError(JahpError, RuntimeError):
    """Another thread changed torch's precision of float32 matrix products while this one needed full precision."""


class MatmulPrecision:
    """torch's precision of float32 matrix products: full while anybody holds it, then exactly as it was before.

    It is one setting of the whole process. Threads that code at the same time hold it together, so that none takes it
    back while another is at work. What another thread asks for in the meantime is noticed, and stays when all are done.

    Since torch 2.9 there are two ways to ask: an older one for all backends, and a newer one with a value for each,
    where "none" stands for that of the backend, and there for that of all. Reading gives the value that applies.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_holders = self._num_breaches = 0
        self._older = "highest"
        self._own: dict[str, str] = {}

    def hold(self) -> int:
        """Full precision from here on; returns what `release` wants to know."""
        with self._lock:
            self._num_holders += 1
            if self._num_holders == 1:
                self._take()
            elif not _is_full():
                self._num_breaches += 1
                self._take()
            return self._num_breaches

    def release(self, held: int) -> bool:
        """What `hold` began ends; the last one gives back what the caller had. Whether precision was full all along.

        Args:
            held: what `hold` returned.
        """
        with self._lock:
            self._num_holders -= 1
            is_full = _is_full()
            if not is_full:
                self._num_breaches += 1
            was_full = self._num_breaches == held
            if self._num_holders == 0:
                self._give_back(is_full)
            elif not is_full:
                self._take()
            return was_full

    def _take(self) -> None:
        self._own = {backend: _own(backend, "matmul") for backend in BACKENDS} if _has_newer() else {}
        self._older = _older()
        torch.set_float32_matmul_precision("highest")  # sets both

    def _give_back(self, is_full: bool) -> None:
        if is_full:
            torch.set_float32_matmul_precision(self._older)
            for backend, value in self._own.items():
                _set(backend, "matmul", value)
            return
        for backend, value in self._own.items():
            if _get(backend, "matmul") == _FULL:  # else it is what another thread asked for
                _set(backend, "matmul", value)


def _has_newer() -> bool:
    return hasattr(torch._C, "_get_fp32_precision_getter")


def _get(backend: str, operation: str) -> str:
    return str(torch._C._get_fp32_precision_getter(backend, operation))


def _set(backend: str, operation: str, value: str) -> None:
    torch._C._set_fp32_precision_setter(backend, operation, value)


def _own(backend: str, operation: str) -> str:
    """The setting itself, "none" where it is inherited, which reading alone does not tell: it follows its parent."""
    parent = (backend, "all") if operation != "all" else ("generic", "all")
    before = _own(*parent) if parent[0] != "generic" else _get(*parent)
    now = _get(backend, operation)
    _set(*parent, _FULL if now != _FULL else "none")  # neither lowers the precision of other threads
    is_inherited = _get(backend, operation) != now
    _set(*parent, before)
    return "none" if is_inherited else now


def _older() -> str:
    """The older setting; "highest" where it cannot be read, because the newer one says otherwise."""
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
    if _has_newer():
        return all(_get(backend, "matmul") == _FULL for backend in BACKENDS)
    return torch.get_float32_matmul_precision() == "highest"


_MATMUL = MatmulPrecision()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """While this holds, float32 matrix products are float32 products: no TF32, bfloat16 or autocast that the caller
    may have asked for.

    Raises:
        PrecisionError: at the end, where another thread took full precision away; results may then be wrong.
    """
    held = _MATMUL.hold()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if not _MATMUL.release(held):  # in place of an error of the block too, which this may have caused
            raise PrecisionError(
                "another thread changed torch's precision of float32 matrix products during the call; set it before "
                "coding begins, or in a process of its own"
            )


def again_if_disturbed(function: Callable[P, T]) -> Callable[P, T]:
    """Call a function without side effects again where another thread took full precision away; a few times."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return function(*args, **kwargs)
            except PrecisionError:
                continue
        return function(*args, **kwargs)

    return wrapper
