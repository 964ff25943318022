"""Processes forked after a codec was used, in which OpenMP would wait for ever for threads that it does not have."""

from __future__ import annotations

import os

import torch

from jahp_pl.errors import JahpError

_pids: set[int] = set()
"""Processes that have used a codec with several threads: this one, and the one that it was forked from."""


class ForkError(JahpError, RuntimeError):
    """A codec in a process that was forked after its parent used one; the message names the remedy."""


def check_not_forked() -> None:
    """Refuse to hang. To be called by whatever computes with several threads.

    Raises:
        ForkError: if the parent has computed with several threads before this process was forked, and so would this.
    """
    if torch.get_num_threads() == 1:
        return
    if _pids - {os.getpid()}:
        raise ForkError(
            "this process was forked after a codec had been used, and torch's threads do not survive that: start "
            "workers with multiprocessing.get_context('spawn'), or call torch.set_num_threads(1) first in each"
        )
    _pids.add(os.getpid())
