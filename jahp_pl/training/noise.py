"""Seeds the noise of each training step and of each validation image.

The noise is a function of the seed of the run and of where it is used, so that a resumed run draws the same noise as an
uninterrupted one.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

from jahp_pl.text import encoded


def seed_step(seed: int, rank: int, step: int, part: int | None = None) -> None:
    """Seed the noise of one optimizer step.

    Args:
        seed: seed of the run.
        rank: rank of this process.
        step: number of optimizer steps already done.
        part: index of the batch within the step if gradients are accumulated over several batches, otherwise None.
    """
    _seed(seed, rank, step, *([] if part is None else [part]))


def seed_image(seed: int, name: str) -> None:
    """Seed the noise of the validation image `name`, equally in every validation and on every rank."""
    _seed(seed, zlib.crc32(encoded(name)))


def _seed(*entropy: int) -> None:
    """Seed torch's random generators on all devices."""
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
