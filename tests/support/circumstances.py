"""Settings of a caller that must not affect the codec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def changed(setter: Callable[..., object], value: object, before: object) -> Iterator[None]:
    """Set another value within the block, and restore the one before."""
    setter(value)
    try:
        yield
    finally:
        setter(before)


CALLER_SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "1 thread": lambda: changed(torch.set_num_threads, 1, torch.get_num_threads()),
    "2 threads": lambda: changed(torch.set_num_threads, 2, torch.get_num_threads()),
    "bfloat16 by default": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "float64 by default": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "medium precision": lambda: changed(torch.set_float32_matmul_precision, "medium", "highest"),
    "deterministic algorithms": lambda: changed(torch.use_deterministic_algorithms, True, False),
    "denormals flushed": lambda: changed(torch.set_flush_denormal, True, False),
    "oneDNN off": lambda: torch.backends.mkldnn.flags(enabled=False),
    "bfloat16 autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
}
