"""Finds out whether bfloat16 makes matrix products faster on a device; half the size does not always mean so."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import Tensor

SIZE = 512
"""Side of the measured matrices; a product takes about 2 ms on one core."""
TRIALS = 5
"""Measurements of each type, in turn, of which the fastest counts."""
WORTHWHILE = 1.2
"""Least speed, relative to float32, at which bfloat16 is used."""


def prefers_bfloat16(device: torch.device) -> bool:
    """Return whether matrix products in bfloat16 are clearly faster than in float32 on this device.

    GPUs are asked. CPUs are measured, once in each process: with AMX, bfloat16 is about eight times as fast and on
    AMD's Zen 4 twice, but on Intel's processors with AVX-512 BF16 alone only half as fast as float32.

    Args:
        device: a device of torch; False for those other than CPUs and CUDA devices.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported()) and _is_faster_on_cpu()


@lru_cache(maxsize=1)
def _is_faster_on_cpu() -> bool:
    """Time products of both types in turn, so that other load slows down both."""
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        single = torch.ones(SIZE, SIZE, dtype=torch.float32, device="cpu")
        half = single.bfloat16()
        _ = single @ single, half @ half  # the first products create kernels
        seconds = [(_seconds(single), _seconds(half)) for _ in range(TRIALS)]
    fastest_single, fastest_half = (min(column) for column in zip(*seconds, strict=True))
    return bool(fastest_single > WORTHWHILE * fastest_half)


def _seconds(matrix: Tensor) -> float:
    """Time one product."""
    start = time.perf_counter()
    _ = matrix @ matrix
    return time.perf_counter() - start
