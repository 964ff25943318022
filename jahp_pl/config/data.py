"""Settings of the training data: the section `data`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from jahp_pl.config.checks import require

MAX_BATCH_SIZE = 2**16
"""Largest batch; one that memory cannot hold would be collected for hours before training fails."""
MAX_WORKERS = 1024
"""Largest number of loading processes per training process."""


@dataclass
class DataConfig:
    """Training and validation shards, and how crops are drawn from them."""

    train: list[str] = field(default_factory=list)
    """Training shards: folders written by `jahp shards`, .tar paths, globs, brace patterns, http(s):, s3: or pipe:
    URLs; a URL that ends in / is a folder with an index.json."""
    val: list[str] = field(default_factory=list)
    """Validation shards, in the same forms; whole images are used. If empty, there is no validation."""
    crop_size: int = 256
    """Side of the square training crops in pixels, a multiple of 16."""
    crops_per_photo: int = 4
    """Number of crops taken from a photograph each time it is decoded; they go to different batches."""
    batch_size: int = 8
    """Crops per optimizer step, summed over all training processes."""
    num_workers: int = 2
    """Number of worker processes, per training process, that decode and crop; with 0, the training process does it."""
    shuffle_buffer: int = 1000
    """Number of compressed samples that each worker keeps in memory and draws from at random."""
    max_val_images: int = 0
    """Number of validation images to use, starting with the first; 0 uses all."""
    timeout: float = 30.0
    """Seconds without progress after which a download is abandoned. http(s) is tried three times; then the shard counts
    as broken and is skipped."""
    cache_dir: str | None = None
    """Folder on a local disk in which all processes of the machine keep downloaded shards; null turns caching off."""
    cache_bytes: int = 100 * 2**30
    """Maximum size of `cache_dir` in bytes; the least recently used shards are removed."""
    max_broken_share: float = 0.5
    """Stop the run if more than this share of the last 1000 photographs or of the last 100 shards that a training
    process drew is broken; 1 never stops it."""

    def __post_init__(self) -> None:
        require(self.crop_size >= 16, "data.crop_size", self.crop_size, "must be at least 16")
        require(self.crop_size % 16 == 0, "data.crop_size", self.crop_size, "must be a multiple of 16")
        is_batch = 1 <= self.batch_size <= MAX_BATCH_SIZE
        require(is_batch, "data.batch_size", self.batch_size, f"must be from 1 to {MAX_BATCH_SIZE}")
        are_workers = 0 <= self.num_workers <= MAX_WORKERS
        require(are_workers, "data.num_workers", self.num_workers, f"must be from 0 to {MAX_WORKERS}")
        require(self.shuffle_buffer >= 1, "data.shuffle_buffer", self.shuffle_buffer, "must be at least 1")
        require(self.crops_per_photo >= 1, "data.crops_per_photo", self.crops_per_photo, "must be at least 1")
        require(0 < self.timeout < math.inf, "data.timeout", self.timeout, "must be positive and finite")
        require(self.cache_bytes >= 1, "data.cache_bytes", self.cache_bytes, "must be at least 1")
        require(0 <= self.max_broken_share <= 1, "data.max_broken_share", self.max_broken_share, "must be from 0 to 1")
        require(self.max_val_images >= 0, "data.max_val_images", self.max_val_images, "must not be negative")
