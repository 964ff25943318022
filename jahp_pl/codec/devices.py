"""Makes the CPU the default device of new tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def on_cpu() -> Iterator[None]:
    """Create tensors on the CPU unless a device is named, whatever `torch.set_default_device` says."""
    if torch.get_default_device().type == "cpu":  # entering torch.device slows down every call of torch a little
        yield
        return
    with torch.device("cpu"):
        yield
