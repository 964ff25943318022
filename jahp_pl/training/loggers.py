"""Where metrics go: a CSV file in the run folder always, Weights & Biases when asked."""

from __future__ import annotations

import csv
import io
import os
import secrets
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from jahp_pl.config import Config, to_dict
from jahp_pl.files import write_atomically, write_errors


def log_now(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Write a row to every logger, under the number of optimizer steps done. Only rank 0 writes."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=trainer.global_step)


def record(module: LightningModule, values: Mapping[str, float]) -> None:
    """Write a row of validation, and let other callbacks see it in `trainer.callback_metrics`.

    Args:
        module: in training.
        values: already reduced: the same on all ranks.
    """
    log_now(module.trainer, values)
    # Each rank has the reduced value, so there is nothing to synchronise; rank_zero_only would hide it from the others.
    module.log_dict(dict(values), logger=False, sync_dist=False, batch_size=1)


class CsvLogger(Logger):
    """One file of all metrics, one line per row, empty where a row lacks a column; ready for pandas or a spreadsheet.

    A resumed run goes on in the same file: rows after the step it resumes from are dropped first.

    Args:
        path: the file.
        start_step: step the run starts from; 0 starts the file anew.
    """

    def __init__(self, path: Path, start_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.start_step = start_step
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        """Name of the run: its folder's."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """There is one file for all sessions of a run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; a column not seen before rewrites the file once.

        Raises:
            WriteError: the disk is full.
        """
        row = {"step": str(step)} | {name: f"{value:.7g}" for name, value in metrics.items()}
        if set(row) <= set(self.columns):
            with write_errors(self.path), self.path.open("a", newline="") as file:
                file.write(self._text([row]))
            return
        rows = self._written_rows()
        for written in (*rows[:1], row):
            self.columns += [name for name in written if name not in self.columns]
        header = dict(zip(self.columns, self.columns, strict=True))
        write_atomically(self.path, self._text([header, *rows, row]).encode())

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run folder has them in config.yaml."""

    def _written_rows(self) -> list[dict[str, str]]:
        """What is in the file: of this session everything, of earlier ones the rows up to the step it starts from."""
        if not self.path.exists() or not (self.columns or self.start_step):
            return []
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return rows if self.columns else [row for row in rows if _step_of(row) <= self.start_step]

    def _text(self, rows: list[dict[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue()


def _step_of(row: Mapping[str, str | None]) -> float:
    """Step of a row; infinite for one that a kill cut short."""
    text = row.get("step") or ""
    return int(text) if text.isdigit() and None not in row.values() else float("inf")


def wandb_logger(config: Config) -> WandbLogger | None:
    """Weights & Biases with its files in the run folder; None where `wandb.mode` is disabled.

    Only rank 0 talks to it. A resumed run continues the same W&B run. Where the server cannot be reached the run is
    kept offline, with a warning: losing a log is no reason to lose a training.
    """
    if config.wandb.mode == "disabled":
        return None
    run = _wandb_run(config)
    return WandbLogger(name=config.name, save_dir=config.run_dir, project=config.wandb.project, experiment=run)


@rank_zero_only
def _wandb_run(config: Config) -> Any:
    import wandb

    # Quiet: what W&B prints would break the progress line, and its files are in the run folder anyway.
    # A server that went away is waited for at the end for two minutes; the run folder then still has everything.
    settings = wandb.Settings(silent=True, console="off", finish_timeout=120)
    id_file = config.run_dir / "wandb" / "run_id"
    start = partial(
        wandb.init,
        resume="allow",
        name=config.name,
        project=config.wandb.project,
        group=config.wandb.group,
        tags=config.wandb.tags,
        dir=str(config.run_dir),
        config=flatten(to_dict(config)),
        settings=settings,
    )
    try:
        run = start(mode=config.wandb.mode, id=_wandb_id(id_file))
    except (wandb.Error, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        rank_zero_warn(
            f"W&B cannot be reached ({reason}); the run is kept offline, send it later with "
            f"`wandb sync {config.run_dir / 'wandb' / 'offline-run-*'}`"
        )
        wandb.teardown()
        # Under a new id: W&B's service may go on holding the failed run under the old one.
        write_atomically(id_file, secrets.token_hex(4).encode())
        run = start(mode="offline", id=id_file.read_text())
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return run


def _wandb_id(file: Path) -> str:
    """Id of the run: given by a sweep's agent, or that of the session before, or a new one."""
    if given := os.environ.get("WANDB_RUN_ID"):
        return given
    if not file.exists():
        write_atomically(file, secrets.token_hex(4).encode())
    return file.read_text()


@rank_zero_only
def finish_wandb(logger: WandbLogger) -> None:
    """Close the run, so that its files are whole and the next one in this process is its own."""
    logger.experiment.finish()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> dotted keys, as on the command line and in sweep files."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
