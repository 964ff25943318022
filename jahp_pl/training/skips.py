"""Optimizer steps that were not made, because loss or gradient was not finite: counted where the weights are."""

from __future__ import annotations

import torch
from torch import Tensor


class Skips:
    """How many in all, how many in a row until now, and the longest row; a step does not wait for them."""

    def __init__(self) -> None:
        self._counts = torch.zeros(3)

    def to(self, device: torch.device, total: int) -> None:
        """Go on counting on a device, from `total`."""
        self._counts = torch.tensor([float(total), 0.0, 0.0], device=device)

    def add(self, skipped: Tensor) -> None:
        """Count one step.

        Args:
            skipped: () 1.0 where it was not made, else 0.0.
        """
        total, in_row, longest = self._counts
        in_row = (in_row + 1) * skipped
        self._counts = torch.stack([total + skipped, in_row, torch.maximum(longest, in_row)])

    @property
    def total(self) -> int:
        """Of the run. Waits for the device."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """In a row, in this session. Waits for the device."""
        return int(self._counts[2])
