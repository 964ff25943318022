"""Training with Lightning. This package itself imports nothing heavy; import its modules one by one."""

import os

from jahp_pl.errors import JahpError


class TrainingError(JahpError, RuntimeError):
    """Training cannot go on; the message is one line that says why and what to do."""


def is_first_rank() -> bool:
    """Whether this process is the one that writes and speaks, of those that train together: by what torchrun, SLURM or
    Lightning has told it, before anything is set up."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
