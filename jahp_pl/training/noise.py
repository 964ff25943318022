"""Which noise is drawn: a function of what it is for, not of what was drawn before, so that a run can be resumed."""

from __future__ import annotations

import numpy as np
import torch


def set_noise(*entropy: int) -> None:
    """Seed the noise of what is computed next, on all devices.

    Args:
        entropy: the seed of the run, and what the noise is for, e.g. rank and step.
    """
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
