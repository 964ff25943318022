"""train(config): one experiment from its configuration to its checkpoints."""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from jahp_pl.config import Config, ConfigError, TrainerConfig, to_dict
from jahp_pl.data.module import ShardDataModule
from jahp_pl.files import clear_leftovers, write_atomically
from jahp_pl.initialization.warm_start import take_networks
from jahp_pl.locks import training_in
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import CheckpointError, read_checkpoint
from jahp_pl.model_io.load import load_model
from jahp_pl.training import is_first_rank
from jahp_pl.training.callbacks import CodingCallback, PictureCallback
from jahp_pl.training.checkpoints import AtomicCheckpointIO, BestAndLast, ResumePoint, find_resume_point
from jahp_pl.training.lightning_warnings import only_useful_messages
from jahp_pl.training.loggers import CsvLogger
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.processes import check_launch, choose_strategy, cluster_plugins
from jahp_pl.training.progress import ProgressLine
from jahp_pl.training.stopping import StopRequests
from jahp_pl.training.wandb_run import HistogramCallback, finish_wandb, log_export, wandb_logger


class TrainResult(NamedTuple):
    """What a run left behind."""

    run_dir: Path
    """config.yaml, metrics.csv, checkpoints/, coding/, pictures/, wandb/."""
    last: Path
    """Checkpoint of the last step."""
    best: Path | None
    """Checkpoint of the lowest validation loss; None without validation."""
    metrics: dict[str, float]
    """Of the last validation, by name (`module`, `callbacks`); empty without validation."""
    steps: int
    """Optimizer steps done, over all resumes."""
    skipped_steps: int
    """Of these, not made because loss or gradient was not finite."""
    seconds: float
    """Trained, over all resumes, validation included."""
    was_finished: bool
    """Nothing was left to do: this call changed nothing."""


class Extras(NamedTuple):
    """What a caller adds to a run."""

    callbacks: Sequence[Callback] = ()
    """Lightning's or one's own, beside those of the run."""
    loggers: Sequence[Logger] = ()
    """Beside metrics.csv and those that the configuration asks for."""
    show_progress: bool = True
    """Whether to print the progress line."""


def train(
    config: Config,
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    show_progress: bool = True,
) -> TrainResult:
    """Train, validate with real files, keep the best and the last checkpoint; resume where the run folder has one.

    Args:
        config: the whole experiment.
        callbacks, loggers, show_progress: see `Extras`.

    Raises:
        ConfigError: `resume` is false and the folder holds a checkpoint; or the checkpoint was trained with other
            settings (`resume.check_changes`); or nothing of `optim.start_from` fits; or other processes were started
            than asked for.
        CheckpointError, ExportError: what to resume or to start from cannot be read.
        TrainingError: too many steps in a row with a non-finite loss.
        WriteError: the disk is full, the checkpoints are as they were; or another process trains in the run folder.
        Stopped: a signal, or the end of `trainer.session_time`; what was trained is saved.
    """
    check_launch(config.trainer)
    # Before any process is launched again for another rank, and by one of them alone.
    with training_in(config.run_dir) if is_first_rank() else nullcontext():
        return _train(config, Extras(callbacks, loggers, show_progress))


def _train(config: Config, extras: Extras) -> TrainResult:
    resume = find_resume_point(config)
    was_finished = resume is not None and resume.is_end_of(config)
    checkpoints = BestAndLast(
        config.run_dir / "checkpoints",
        config.trainer.val_every_steps,
        config.trainer.keep_checkpoints,
        forgets_best=resume is not None and bool(resume.changes),
    )
    if not was_finished:
        prepare_run_folder(config)
        with only_useful_messages():
            fit(config, checkpoints, resume, extras)
    return read_result(config.run_dir, checkpoints, was_finished)


def fit(config: Config, checkpoints: BestAndLast, resume: ResumePoint | None, extras: Extras) -> None:
    """Build everything and train; see `train`."""
    csv = CsvLogger(config.run_dir / "metrics.csv")
    if resume is not None:
        csv.resume(resume.steps, resume.validation_due)
    seed_everything(config.seed, workers=True, verbose=False)
    module = CompressionModule(config, read_start(config) if resume is None else None)
    module.stops = StopRequests(config.trainer)
    data = ShardDataModule(config.data, config.seed)  # begins its stream at the step that Lightning restores
    own: list[Logger] = [csv]
    if (wandb_log := wandb_logger(config)) is not None:
        own.append(wandb_log)
    if (tensorboard := tensorboard_logger(config, resume)) is not None:
        own.append(tensorboard)
    callbacks = [*coding_callbacks(config), *extras.callbacks, checkpoints]
    trainer = build_trainer(config, [*own, *extras.loggers], callbacks, extras.show_progress)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume.path if resume is not None else None)
        if wandb_log is not None and config.wandb.log_model:
            best = checkpoints.best if checkpoints.best.exists() else checkpoints.last
            log_export(wandb_log, best, config.run_dir / "export")
    finally:
        if wandb_log is not None:
            finish_wandb(wandb_log)


def tensorboard_logger(config: Config, resume: ResumePoint | None) -> TensorBoardLogger | None:
    """Event files in the run folder's `tensorboard`; None where they are not asked for. What comes after the step that
    a run resumes from is hidden.

    Raises:
        ConfigError: the package is not installed.
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
    """A Lightning trainer that counts optimizer steps, not epochs. On a CPU, the process keeps its memory from here on
    (`memory`)."""
    settings = config.trainer
    trainer = Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=choose_strategy(settings),
        precision=choose_precision(settings),
        deterministic=settings.deterministic,
        # The module ends the run, by steps or by time. Lightning alone would leave out a last validation that is due.
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
        default_root_dir=config.run_dir / "checkpoints",
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,  # what is built while validating, e.g. a codec, may be used afterwards
    )
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    return trainer


def coding_callbacks(config: Config) -> list[Callback]:
    """Real files and pictures at validation, as far as they are asked for."""
    if not config.coding.max_images or not config.data.val:
        return []
    coding = CodingCallback(config.run_dir / "coding", config.coding.max_images)
    pictures = PictureCallback(coding, config.run_dir / "pictures", config.coding.max_pictures)
    return [coding, *([pictures] if config.coding.max_pictures else []), HistogramCallback(coding)]


def choose_precision(settings: TrainerConfig) -> Literal["32-true", "bf16-mixed"]:
    """`trainer.precision`, with auto resolved: bf16-mixed only where the hardware multiplies bfloat16 natively."""
    if settings.precision != "auto":
        return settings.precision
    if settings.accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()  # so has every CPU with AMX
    return "bf16-mixed" if native else "32-true"


@rank_zero_only
def prepare_run_folder(config: Config) -> None:
    """Make the folder, tidy up after a kill, and write down what is run.

    Raises:
        WriteError: it cannot be written.
    """
    clear_leftovers(config.run_dir, alone=True)
    settings = to_dict(config) | {"allow_changes": False}  # it holds for one call
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_atomically(config.run_dir / "config.yaml", text.encode())


def read_result(run_dir: Path, checkpoints: BestAndLast, was_finished: bool) -> TrainResult:
    """Read the outcome back from the last checkpoint: what a later process would see.

    Raises:
        CheckpointError: it cannot be read.
    """
    content = read_checkpoint(checkpoints.last)
    saved = content["callbacks"].get(checkpoints.state_key)
    if saved is None:
        raise CheckpointError(f"{checkpoints.last}: not written by `jahp train`")
    return TrainResult(
        run_dir=run_dir,
        last=checkpoints.last,
        best=checkpoints.best if math.isfinite(saved["best_loss"]) else None,
        metrics=saved["metrics"],
        steps=content["global_step"],
        skipped_steps=content["training"]["skipped_steps"],
        seconds=content["training"]["seconds"],
        was_finished=was_finished,
    )


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Keep the memory that this process frees, so that the next training step on the CPU reuses it.

    glibc maps every large tensor anew, and gives back to the system what is free at the end of its heap. Each step then
    asks for its feature maps again, and the system clears them page by page first: docs/scaling.md has the times.
    PyTorch keeps freed memory on GPUs, not on CPUs.

    Returns:
        Whether the C library is glibc and took both settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, -1)])  # no maps; never trim


def read_start(config: Config) -> dict[str, nn.Module] | None:
    """Networks of the model of `optim.start_from`, by name, as `optim.start_networks` has them; None where there is
    none. Of a run, the average of its weights where there is one.

    Raises:
        CheckpointError, ExportError: it cannot be read.
        ConfigError: no network of it fits.
    """
    source = config.optim.start_from
    if source is None:
        return None
    start = load_model(source)
    networks = dict(start.named_children())
    if config.optim.start_networks == "transforms":
        networks = {name: networks[name] for name in ("g_a", "g_s", "gains") if name in networks}
    if not take_networks(CompressionModel(config.model), networks):
        raise ConfigError(
            f"optim.start_from={source}: no network of it has the layers of this model; its model.num_filters is "
            f"{start.config.num_filters}, its model.num_latents {start.config.num_latents}"
        )
    return networks
