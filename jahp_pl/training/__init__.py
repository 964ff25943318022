"""Training with Lightning. Importing this package alone is fast; import its modules individually."""

import os

from jahp_pl.errors import JahpError

METRICS_FILE = "metrics.csv"
"""Name of the file in a run folder that holds everything that was logged."""


class TrainingError(JahpError, RuntimeError):
    """Training cannot continue; the message is one line with the reason and the remedy."""


def is_first_rank() -> bool:
    """Check whether this process is rank 0, the only one that writes and prints.

    Reads the environment of torchrun, SLURM or Lightning, so it works before anything is set up.
    """
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
