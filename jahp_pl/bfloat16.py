"""Measures whether bfloat16 makes matrix products faster on a device; its half size does not guarantee that."""

from __future__ import annotations

from functools import lru_cache

import torch

from jahp_pl.timing import shortest_times

SIZE = 512
"""Side of the measured matrices; a product takes about 2 ms on one core."""
MIN_SPEEDUP = 1.2
"""Minimum speed relative to float32 at which bfloat16 is used."""


@lru_cache
def prefers_bfloat16(device: torch.device) -> bool:
    """Return whether matrix products in bfloat16 are clearly faster than in float32 on this device.

    For GPUs, torch knows the answer. CPUs are measured, once in each process: bfloat16 is about eight times as fast as
    float32 with AMX and twice as fast on AMD's Zen 4, but half as fast on Intel processors with AVX-512 BF16 and
    without AMX.

    Args:
        device: a device of torch; the result is False for all but CPUs and CUDA devices.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported()) and _is_faster_on_cpu()


def _is_faster_on_cpu() -> bool:
    """Measure a matrix product of `SIZE` in both types."""
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        single = torch.ones(SIZE, SIZE, dtype=torch.float32, device="cpu")
        half = single.bfloat16()
        single_time, half_time = shortest_times(lambda: single @ single, lambda: half @ half)
    return single_time > MIN_SPEEDUP * half_time
