"""Counts drawn and skipped photographs exactly, and stops training if too many are broken."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field

from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.shard_reader import DrawCounts

_NUM_EXAMPLES = 20
_PHOTO_WINDOW, _SHARD_WINDOW = 1000, 100
"""Numbers of latest draws over which the shares of broken photographs and shards are taken."""

_log = logging.getLogger(__name__)


class RecentShare:
    """Share of broken items among recent draws.

    Args:
        window: minimum number of draws. The share is taken over the fewest latest samples that contain this many
            draws; it is 0 until there have been that many.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._samples: deque[tuple[int, int]] = deque()
        self._total = self._broken = 0

    def add(self, total: int, broken: int) -> float:
        """Add one sample with `total` draws, of which `broken` are broken, and return the share from 0 to 1."""
        self._samples.append((total, broken))
        self._total, self._broken = self._total + total, self._broken + broken
        while self._total - self._samples[0][0] >= self._window:
            oldest = self._samples.popleft()
            self._total, self._broken = self._total - oldest[0], self._broken - oldest[1]
        return self._broken / self._total if self._total >= self._window else 0.0


@dataclass
class SkipCounts:
    """Photographs and shards that were drawn or skipped for the batches of this process; exact and reproducible.

    Training draws photographs repeatedly, and each draw of a broken one counts.
    """

    num_broken: int = 0
    """Photographs that could not be decoded, and unreadable rests of shards."""
    num_small: int = 0
    """Photographs smaller than the crop."""
    drawn: DrawCounts = field(default_factory=DrawCounts)
    """Everything that was drawn, usable or not."""
    examples: list[Skipped] = field(default_factory=list)
    """The first 20 different skipped photographs, for messages."""
    max_broken_share: float = 1.0
    """Maximum share, from 0 to 1, of broken ones among the last 1000 photographs or the last 100 shards."""
    _photos: RecentShare = field(default_factory=lambda: RecentShare(_PHOTO_WINDOW), compare=False, repr=False)
    _shards: RecentShare = field(default_factory=lambda: RecentShare(_SHARD_WINDOW), compare=False, repr=False)

    def clear(self) -> None:
        """Reset all counts."""
        self.num_broken, self.num_small, self.drawn = 0, 0, DrawCounts()
        self.examples.clear()

    def add(self, skipped: tuple[Skipped, ...], drawn: DrawCounts) -> None:
        """Count one sample, and log each broken photograph the first time.

        Raises:
            DataError: if the share of broken items among the latest draws is too large.
        """
        num_broken = sum(photo.reason == "broken" for photo in skipped)
        self.num_broken += num_broken
        self.num_small += sum(photo.reason == "small" for photo in skipped)
        self.drawn = self.drawn.plus(drawn)
        for photo in skipped:
            if len(self.examples) < _NUM_EXAMPLES and photo not in self.examples:
                self.examples.append(photo)
                if photo.reason == "broken":
                    _log.warning("%s: skipped (%s)", photo.name, photo.detail)
        self._check_share("photographs", self._photos.add(drawn.photos, num_broken))
        self._check_share("shards", self._shards.add(drawn.shards, drawn.broken_shards))

    def _check_share(self, what: str, share: float) -> None:
        if share > self.max_broken_share:
            broken = [f"{photo.name} ({photo.detail})" for photo in self.examples if photo.reason == "broken"]
            raise DataError(
                f"{share:.0%} of the latest {what} are broken, more than data.max_broken_share="
                f"{self.max_broken_share:g}, e.g. {', '.join(broken[:3])}; repair the shards or raise the limit"
            )
