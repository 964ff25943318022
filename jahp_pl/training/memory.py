"""Memory of a training step on the CPU: what one step frees, the next one uses.

glibc maps every large tensor anew, and gives back to the system what is free at the end of its heap. Each step then
asks for its feature maps again, and the system clears them page by page before it hands them out: docs/scaling.md has
the times. PyTorch keeps freed memory on GPUs, not on CPUs.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Keep what this process frees, for the rest of its life; return whether the C library is one that can be told."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, -1)])  # no maps; never trim
