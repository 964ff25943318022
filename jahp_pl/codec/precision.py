"""Float32 matrix products that are float32 products, whatever the caller has asked torch for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class MatmulPrecision:
    """torch's precision of float32 matrix products: full while anybody holds it, then as it was before.

    It is one setting of the whole process. Threads that code at the same time hold it together, so that none takes it
    back while another is at work.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_holders = 0
        self._older = "highest"
        self._newer: list[tuple[Any, str]] = []

    def hold(self) -> None:
        """Full precision from here on."""
        with self._lock:
            self._num_holders += 1
            if self._num_holders > 1:
                return
            # Since torch 2.9 there are two ways to ask for less; the older cannot be read once the newer was used.
            backends = (torch.backends.cuda, torch.backends.mkldnn)
            modules: list[Any] = [getattr(backend, "matmul", None) for backend in backends]
            self._newer = [(module, module.fp32_precision) for module in modules if hasattr(module, "fp32_precision")]
            try:
                self._older = torch.get_float32_matmul_precision()
            except RuntimeError:
                self._older = "highest"
            torch.set_float32_matmul_precision("highest")  # sets both

    def release(self) -> None:
        """What `hold` began ends; the last one gives back what the caller had."""
        with self._lock:
            self._num_holders -= 1
            if self._num_holders:
                return
            torch.set_float32_matmul_precision(self._older)
            for module, precision in self._newer:
                module.fp32_precision = precision


_MATMUL = MatmulPrecision()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """While this holds, float32 matrix products are float32 products: no TF32, bfloat16 or autocast that the caller
    may have asked for."""
    _MATMUL.hold()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _MATMUL.release()
