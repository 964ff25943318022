"""The Kodak test set, on which the field publishes its results."""

from __future__ import annotations

KODAK_NAMES = frozenset(f"kodim{number:02}" for number in range(1, 25))
"""Names of its 24 images without suffix."""
