"""Sets the C library's memory allocator for training on a CPU."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameter numbers from glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Keep memory that this process frees, so that the next training step on the CPU reuses it.

    By default, glibc maps each large tensor separately and returns free memory at the end of its heap to the system.
    Each step then requests its feature maps again, and the system first clears them page by page; docs/results.md has
    the times. PyTorch caches freed memory on GPUs but not on CPUs.

    Returns:
        Whether the C library is glibc and accepted both settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, -1)])  # never map, never trim
