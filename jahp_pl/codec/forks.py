"""Detects processes that were forked after a codec was used, where OpenMP would wait forever for missing threads."""

from __future__ import annotations

import os

import torch

from jahp_pl.errors import JahpError

_pids: set[int] = set()
"""Ids of the processes that have used a codec with several threads: this one, and those that it was forked from."""


class ForkError(JahpError, RuntimeError):
    """Use of a codec in a process that was forked after its parent had used one; the message names the remedy."""


def check_not_forked() -> None:
    """Raise an error if torch would hang; call it before computing with several threads.

    Raises:
        ForkError: if a parent process had used several threads before this one was forked, and this one would use
            several too.
    """
    if torch.get_num_threads() == 1:
        return
    if _pids - {os.getpid()}:
        raise ForkError(
            "this process was forked after a codec had been used, and torch's threads do not survive a fork; start "
            "workers with multiprocessing.get_context('spawn'), or call torch.set_num_threads(1) first in each"
        )
    _pids.add(os.getpid())
