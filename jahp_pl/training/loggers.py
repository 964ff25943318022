"""Logs metrics to every logger of the run, one of which always writes a CSV file in the run folder."""

from __future__ import annotations

import csv
import io
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from jahp_pl.errors import write_errors
from jahp_pl.files.atomic import write_atomically
from jahp_pl.text import encoded
from jahp_pl.training.metrics_file import read_rows, step_of


def log_now(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Write a row to every logger under the current optimizer step. Only rank 0 writes."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=trainer.global_step)


def log_row(module: LightningModule, values: Mapping[str, float]) -> None:
    """Write a row to every logger, and make it visible to callbacks in `trainer.callback_metrics`.

    Nothing is written during Lightning's sanity check.

    Args:
        module: module that is being trained, or validated separately.
        values: reduced values, the same on all ranks.
    """
    trainer = module.trainer
    if trainer.sanity_checking:
        return
    # In a separate validation, Lightning logs and returns the values; in training, only `log_now` has the right step.
    is_training = trainer.state.fn == TrainerFn.FITTING
    if is_training:
        log_now(trainer, values)
    # The values are already reduced, so nothing is synchronized; rank_zero_only would hide them from other ranks.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"You called `self\.log\(")  # a Trainer may have no logger
        module.log_dict(dict(values), logger=not is_training, sync_dist=False, batch_size=1)


class CsvLogger(Logger):
    """Logger that writes all metrics to one CSV file, one line per row; a cell is empty if its row lacks the column.

    An existing file is overwritten unless `resume` is called first.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] = []
        self._kept_steps = 0
        self._validates_again = False

    def resume(self, step: int, validates_again: bool = False) -> None:
        """Continue the existing file; the next write removes its rows after the resumed step.

        Args:
            step: step from which the run resumes.
            validates_again: whether the validation of that step is repeated, so that its rows must be dropped too.
        """
        self._kept_steps, self._validates_again = step, validates_again

    @property
    def name(self) -> str:
        """Name of the run, i.e. of its folder."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Empty, because all sessions of a run share one file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; if it has a new column, rewrite the whole file.

        Raises:
            WriteError: if the disk is full.
        """
        row = {"step": str(step)} | {name: f"{value:.7g}" for name, value in metrics.items()}
        if set(row) <= set(self.columns):
            with write_errors(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text([row]))
            return
        rows = self._written_rows()
        for written in (*rows[:1], row):
            self.columns += [name for name in written if name not in self.columns]
        header = dict(zip(self.columns, self.columns, strict=True))
        write_atomically(self.path, encoded(self._text([header, *rows, row])))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing, because config.yaml in the run folder has the settings."""

    def _written_rows(self) -> list[dict[str, str]]:
        """Read the rows to keep: all rows of this session, and rows of earlier sessions up to the resumed step."""
        if not self.path.exists() or not (self.columns or self._kept_steps):
            return []
        rows = list(read_rows(self.path))
        return rows if self.columns else [row for row in rows if self._is_kept(row)]

    def _is_kept(self, row: Mapping[str, str]) -> bool:
        is_validation = any(text and name.startswith("val/") for name, text in row.items())
        step = step_of(row)
        return step is not None and step <= self._kept_steps - (is_validation and self._validates_again)

    def _text(self, rows: list[dict[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue()
