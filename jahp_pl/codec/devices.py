"""Checks devices, and makes the CPU the default device of new tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from jahp_pl.errors import JahpError, first_line


class DeviceError(JahpError, ValueError):
    """A device that cannot be used; the message is one line that says why."""


def check_device(device: str | torch.device | None) -> None:
    """Check that tensors can be created on a device and read back; None means the CPU.

    Raises:
        DeviceError: if they cannot, as on the meta device, whose tensors hold no data.
    """
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = first_line(error).split(" device type at start")[0].split(". ")[0]
        raise DeviceError(f"device {device}: cannot be used ({reason}); try cpu") from None


@contextmanager
def on_cpu() -> Iterator[None]:
    """In the block, create tensors on the CPU unless a device is given, whatever `torch.set_default_device` says."""
    if torch.get_default_device().type == "cpu":  # entering torch.device slows down every call of torch a little
        yield
        return
    with torch.device("cpu"):
        yield
