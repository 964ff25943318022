"""Names of the checkpoints in a run folder, and where to find them. No torch."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
"""Names in a run folder: the folder of checkpoints, and in it the last and the best one."""


def checkpoint_in(folder: Path) -> Path | None:
    """Return the best checkpoint of a run folder or of a folder of checkpoints, or the last if none is best."""
    paths = (folder / place / name for place in (CHECKPOINTS, ".") for name in (BEST, LAST))
    return next((path for path in paths if path.is_file()), None)


def earlier_checkpoint(folder: Path, number: int) -> Path:
    """Return the path of the checkpoint saved `number` saves before last.ckpt; `BestAndLast` keeps a few of them."""
    return folder / (f"last-{number}.ckpt" if number else LAST)
