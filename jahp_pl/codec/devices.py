"""Devices: whether one can be used, and the default one of new tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from jahp_pl.errors import JahpError, first_line


class DeviceError(JahpError, ValueError):
    """A device that cannot be used; the message is one line that says why."""


def check_device(device: str | torch.device | None) -> None:
    """Check that tensors on a device hold data; None is the CPU.

    Raises:
        DeviceError: if they cannot be created or read.
    """
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = first_line(error).split(" device type at start")[0].split(". ")[0]
        raise DeviceError(f"device {device}: cannot be used ({reason}); try cpu") from None


@contextmanager
def on_cpu() -> Iterator[None]:
    """Create tensors on the CPU unless a device is named, whatever `torch.set_default_device` says."""
    if torch.get_default_device().type == "cpu":  # entering torch.device slows down every call of torch a little
        yield
        return
    with torch.device("cpu"):
        yield
