"""Runs one experiment from its configuration to its checkpoints: `train(config)`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from jahp_pl.bfloat16 import prefers_bfloat16
from jahp_pl.config import Config, ConfigError, TrainerConfig, require_type, to_dict
from jahp_pl.data.module import ShardDataModule
from jahp_pl.errors import add_path_to_errors
from jahp_pl.files.atomic import clear_leftovers, write_atomically
from jahp_pl.files.locks import training_in
from jahp_pl.model_io.checkpoint import CheckpointError, RunCounters, read_checkpoint
from jahp_pl.model_io.checkpoint_files import CHECKPOINTS
from jahp_pl.text import encoded
from jahp_pl.training import METRICS_FILE, is_first_rank
from jahp_pl.training.callbacks import CodingCallback, PictureCallback
from jahp_pl.training.checkpoints import AtomicCheckpointIO, BestAndLast
from jahp_pl.training.lightning_warnings import only_useful_messages
from jahp_pl.training.loggers import CsvLogger
from jahp_pl.training.memory import keep_freed_memory
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.processes import check_launch, choose_strategy, cluster_plugins, device_errors
from jahp_pl.training.progress import ProgressLine
from jahp_pl.training.resuming import ResumePoint, find_resume_point
from jahp_pl.training.start import read_start
from jahp_pl.training.stopping import StopRequests
from jahp_pl.training.wandb_run import HistogramCallback, finish_wandb, log_export, wandb_logger


class TrainResult(NamedTuple):
    """Result of a run."""

    run_dir: Path
    """Folder with config.yaml, metrics.csv, checkpoints/, coding/, pictures/ and wandb/."""
    last: Path
    """Checkpoint of the last step."""
    best: Path | None
    """Checkpoint of the lowest validation loss; None without validation."""
    metrics: dict[str, float]
    """Metrics of the last validation by name (listed in docs/python.md); empty without validation."""
    steps: int
    """Number of optimizer steps over all sessions."""
    skipped_steps: int
    """Number of these steps that were skipped because their loss or gradient was not finite or too large."""
    seconds: float
    """Training time over all sessions in seconds, including validation."""
    was_finished: bool
    """Whether the run was already complete, so that this call changed nothing."""


class Extras(NamedTuple):
    """Options of `train` that are not part of the configuration."""

    callbacks: Sequence[Callback] = ()
    """Callbacks in addition to the run's own."""
    loggers: Sequence[Logger] = ()
    """Loggers in addition to metrics.csv and the loggers that the configuration enables."""
    show_progress: bool = True
    """Whether to print the progress line."""


def train(
    config: Config,
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    show_progress: bool = True,
) -> TrainResult:
    """Train, validate with real files, and keep the best and the last checkpoint; resume if the run folder has one.

    Args:
        config: the whole experiment.
        callbacks, loggers, show_progress: see `Extras`.

    Raises:
        ConfigError: if `resume` is false and the folder has a checkpoint, the checkpoint has other settings
            (`resuming.check_changes`), no network of `optim.start_from` fits, or the number of processes is wrong.
        CheckpointError, ExportError: if the model to resume or to start from cannot be read.
        TrainingError: if too many consecutive steps have a non-finite loss or gradient, batches are not images,
            or the ranks disagree.
        WriteError: if the disk is full (the checkpoints are unchanged), or another process trains in the run folder.
        Stopped: after a signal or the end of `trainer.session_time`; the state so far is saved.
    """
    require_type(config, Config, "load one with jahp_pl.load_config")
    check_launch(config.trainer)
    # The lock is taken before Lightning launches processes for other ranks, and only by rank 0.
    with training_in(config.run_dir) if is_first_rank() else nullcontext():
        return _train(config, Extras(callbacks, loggers, show_progress))


def _train(config: Config, extras: Extras) -> TrainResult:
    """Start or resume a run, and read its result."""
    resume = find_resume_point(config)
    was_finished = resume is not None and resume.is_end_of(config)
    checkpoints = BestAndLast(
        config.run_dir / CHECKPOINTS,
        config.trainer.val_every_steps,
        config.trainer.keep_checkpoints,
        forgets_best=resume is not None and bool(resume.changes),
        latest_is_best=config.optim.search_effort > 0,
    )
    if not was_finished:
        with only_useful_messages():
            fit(config, checkpoints, resume, extras)
    return read_result(config.run_dir, checkpoints, was_finished)


def fit(config: Config, checkpoints: BestAndLast, resume: ResumePoint | None, extras: Extras) -> None:
    """Build the module, the data and the trainer, and train (see `train`)."""
    csv = CsvLogger(config.run_dir / METRICS_FILE)
    if resume is not None:
        csv.resume(resume.steps, resume.validation_due)
    seed_everything(config.seed, workers=True, verbose=False)
    module = CompressionModule(config, read_start(config) if resume is None else None)
    module.stop_requests = StopRequests(config.trainer)
    data = ShardDataModule(config.data, config.seed)  # starts its stream at the step that Lightning restores
    own: list[Logger] = [csv]
    if (wandb_log := wandb_logger(config)) is not None:
        own.append(wandb_log)
    if (tensorboard := tensorboard_logger(config, resume)) is not None:
        own.append(tensorboard)
    callbacks = [*coding_callbacks(config), *extras.callbacks, checkpoints]
    trainer = build_trainer(config, [*own, *extras.loggers], callbacks, extras.show_progress)
    prepare_run_folder(config)  # not before everything else was found to be in order
    try:
        with add_path_to_errors(config.run_dir):  # TensorBoard's errors name no file
            trainer.fit(module, datamodule=data, ckpt_path=resume.path if resume is not None else None)
        if wandb_log is not None and config.wandb.log_model:
            best = checkpoints.best if checkpoints.best.exists() else checkpoints.last
            log_export(wandb_log, best, config.run_dir / "export")
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning turns a second Ctrl+C into an exit with status 1
            raise KeyboardInterrupt from None
        raise
    finally:
        if wandb_log is not None:
            finish_wandb(wandb_log)


def tensorboard_logger(config: Config, resume: ResumePoint | None) -> TensorBoardLogger | None:
    """Create the logger that writes event files to RUN/tensorboard; None if the setting is off.

    Events after the step from which the run resumes are hidden.

    Raises:
        ConfigError: if the package is not installed.
    """
    if not config.tensorboard:
        return None
    step = None if resume is None else resume.steps + 1
    try:
        return TensorBoardLogger(config.run_dir, name="tensorboard", version="", purge_step=step)
    except ModuleNotFoundError:
        raise ConfigError("tensorboard=True: needs the package; pip install 'jahp_pl[tensorboard]'") from None


def build_trainer(
    config: Config, loggers: list[Logger], callbacks: list[Callback], show_progress: bool = True
) -> Trainer:
    """Build a Lightning trainer that counts optimizer steps instead of epochs.

    On a CPU, the process keeps freed memory from here on, see `memory`.

    Raises:
        ConfigError: if the machine lacks the devices.
    """
    settings = config.trainer
    with device_errors(settings):
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=choose_strategy(settings),
            precision=choose_precision(settings),
            deterministic=settings.deterministic,
            # The module ends the run, by steps or by time; Lightning alone would skip a last validation that is due.
            max_steps=-1,
            max_epochs=-1,
            val_check_interval=settings.val_every_steps,
            check_val_every_n_epoch=None,
            limit_val_batches=None if config.data.val else 0,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.log_every_steps,
            logger=loggers,
            callbacks=[*callbacks, *([ProgressLine(config.name, config.data.batch_size)] if show_progress else [])],
            enable_progress_bar=show_progress,
            plugins=[AtomicCheckpointIO(), *cluster_plugins()],
            default_root_dir=config.run_dir / CHECKPOINTS,
            enable_model_summary=False,
            use_distributed_sampler=False,
            inference_mode=False,  # objects built in validation, e.g. a codec, may be used afterwards
        )
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    return trainer


def coding_callbacks(config: Config) -> list[Callback]:
    """Return the callbacks that write real files and pictures at validation; empty if they are disabled."""
    if not config.coding.max_images or not config.data.val:
        return []
    coding = CodingCallback(config.run_dir / "coding", config.coding.max_images)
    pictures = PictureCallback(coding, config.run_dir / "pictures", config.coding.max_pictures)
    return [coding, *([pictures] if config.coding.max_pictures else []), HistogramCallback(coding)]


def choose_precision(settings: TrainerConfig) -> Literal["32-true", "bf16-mixed"]:
    """Resolve `trainer.precision`: auto is bf16-mixed only where bfloat16 is faster than float32."""
    if settings.precision != "auto":
        return settings.precision
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if prefers_bfloat16(torch.device("cuda" if on_gpu else "cpu")) else "32-true"


@rank_zero_only
def prepare_run_folder(config: Config) -> None:
    """Create the run folder, remove temporary files that a killed session left, and write config.yaml.

    Raises:
        WriteError: if the folder cannot be written.
    """
    clear_leftovers(config.run_dir, alone=True)
    settings = to_dict(config) | {"allow_changes": False}  # this setting applies to one call only
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_atomically(config.run_dir / "config.yaml", encoded(text))


def read_result(run_dir: Path, checkpoints: BestAndLast, was_finished: bool) -> TrainResult:
    """Read the result from the last checkpoint rather than from memory, so that a repeated call returns the same.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or `jahp train` did not write it.
    """
    content = read_checkpoint(checkpoints.last)
    counters = RunCounters.read(content)
    saved = content["callbacks"].get(checkpoints.state_key)
    if saved is None:
        raise CheckpointError(f"{checkpoints.last}: was not written by `jahp train`; choose another name=...")
    return TrainResult(
        run_dir=run_dir,
        last=checkpoints.last,
        best=checkpoints.best if math.isfinite(saved["best_loss"]) else None,
        metrics=saved["metrics"],
        steps=content["global_step"],
        skipped_steps=counters.skipped_steps,
        seconds=counters.seconds,
        was_finished=was_finished,
    )
