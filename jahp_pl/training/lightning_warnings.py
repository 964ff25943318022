"""Drops messages of Lightning that users cannot act on; the comment beside each gives the reason."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

IGNORED_MESSAGES = (
    r"GPU available: ",  # the configuration and the first line of the run state hardware and precision
    r"TPU available: ",
    r"Using bfloat16 Automatic Mixed Precision",
    r"💡 Tip: ",  # advertisements
    r"You are using a CUDA device .* that has Tensor Cores",  # trainer.precision decides
    r"Restoring states from the checkpoint",  # the progress line shows the first step
    r"Restored all states from the checkpoint",
    r"`Trainer\.fit` stopped: ",  # the progress line shows the end
    r"\nDetected KeyboardInterrupt",  # the user pressed it
)
"""Beginnings of log messages to drop."""

IGNORED_WARNINGS = (
    r"The '\w+_dataloader' does not have many workers",  # data.num_workers is chosen, 0 included
    r"The `srun` command is available on your system but is not used",  # interactive use of a cluster is fine
    r"You're resuming from a checkpoint that ended before the epoch ended",  # there are no epochs to end
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",  # values are reduced before they are logged
    r"Found \d+ module\(s\) in eval mode at the start of training",  # the averaged model always is
    r"The ``compute`` method of metric RowMeans was called before",  # a rank may have no image to validate
    r"`broadcast_buffers` is deprecated",  # older releases of torch lack its successor
    r"Checkpoint directory .* exists and is not empty",  # as intended when resuming
    r"`?isinstance\(treespec, LeafSpec\)",  # Lightning's own use of torch
)
"""Beginnings of warnings to drop."""


@contextmanager
def only_useful_messages() -> Iterator[None]:
    """Drop messages that match `IGNORED_MESSAGES` or `IGNORED_WARNINGS` within the block; show all others."""
    ignored = re.compile("|".join(IGNORED_MESSAGES))

    def is_useful(entry: logging.LogRecord) -> bool:
        return not ignored.match(entry.getMessage())

    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "pytorch.utilities.rank_zero", "fabric")]
    for logger in loggers:
        logger.addFilter(is_useful)
    try:
        with warnings.catch_warnings():
            for start in IGNORED_WARNINGS:
                warnings.filterwarnings("ignore", message=start)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_useful)
