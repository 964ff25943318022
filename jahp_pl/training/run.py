"""train(config): one experiment from its configuration to its checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from jahp_pl.checkpoint import HYPER_PARAMETERS, CheckpointError, read_checkpoint, read_newest
from jahp_pl.config import Config, ConfigError, TrainerConfig, to_dict
from jahp_pl.data.module import ShardDataModule
from jahp_pl.files import write_atomically
from jahp_pl.training.callbacks import CodingCallback, PictureCallback
from jahp_pl.training.checkpoints import AtomicCheckpointIO, BestAndLast, put_back
from jahp_pl.training.loggers import CsvLogger
from jahp_pl.training.messages import only_useful_messages
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.progress import ProgressLine
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


class ResumePoint(NamedTuple):
    """Where a run goes on."""

    path: Path
    """Checkpoint to load."""
    steps: int
    """Optimizer steps done."""
    seconds: float
    """Trained so far."""


def train(config: Config) -> TrainResult:
    """Train, validate with real files, keep the best and the last checkpoint; resume where the run folder has one.

    Raises:
        ConfigError: `resume` is false and the folder holds a checkpoint; or the checkpoint has another architecture.
        CheckpointError: the checkpoint to resume from cannot be read.
        TrainingError: too many steps in a row with a non-finite loss.
        WriteError: the disk is full; the checkpoints are as they were.
    """
    resume = find_resume_point(config)
    prepare_run_folder(config)
    checkpoints = BestAndLast(
        config.run_dir / "checkpoints", config.trainer.val_every_steps, config.trainer.keep_checkpoints
    )
    if resume is None or not is_finished(config, resume):
        with only_useful_messages():
            fit(config, checkpoints, resume)
    return read_result(config.run_dir, checkpoints)


def is_first_rank() -> bool:
    """Whether this process is the one of a distributed run that writes and speaks."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def fit(config: Config, checkpoints: BestAndLast, resume: ResumePoint | None) -> None:
    """Build everything and train; see `train`."""
    start_step = resume.steps if resume is not None else 0
    seed_everything(config.seed, workers=True, verbose=False)
    module = CompressionModule(config)
    data = ShardDataModule(config.data, config.seed)  # begins its stream at the step that Lightning restores
    loggers: list[Logger] = [CsvLogger(config.run_dir / "metrics.csv", start_step)]
    if (wandb_log := wandb_logger(config)) is not None:
        loggers.append(wandb_log)
    trainer = build_trainer(config, loggers, [*coding_callbacks(config), checkpoints])
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume.path if resume is not None else None)
        if wandb_log is not None and config.wandb.log_model:
            best = checkpoints.best if checkpoints.best.exists() else checkpoints.last
            log_export(wandb_log, best, config.run_dir / "export")
    finally:
        if wandb_log is not None:
            finish_wandb(wandb_log)


def build_trainer(config: Config, loggers: list[Logger], callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer that counts optimizer steps, not epochs."""
    settings = config.trainer
    num_ranks = settings.devices * settings.num_nodes
    return Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        # Buffers are constants; to broadcast them in every forward would hang where ranks validate unequal shares.
        strategy=DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False) if num_ranks > 1 else "auto",
        precision=choose_precision(settings),
        deterministic=settings.deterministic,
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=settings.val_every_steps,
        check_val_every_n_epoch=None,
        limit_val_batches=None if config.data.val else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every_steps,
        logger=loggers,
        callbacks=[*callbacks, ProgressLine(config.name, config.data.batch_size)],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=config.run_dir,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,  # what is built while validating, e.g. a codec, may be used afterwards
    )


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


def find_resume_point(config: Config) -> ResumePoint | None:
    """The run folder's last checkpoint, if it has one and it fits; where it is damaged, the one before.

    Raises:
        ConfigError, CheckpointError: see `train`.
    """
    folder = config.run_dir / "checkpoints"
    path = folder / "last.ckpt"
    if path.exists() and not config.resume:
        raise ConfigError(
            f"resume=False: {path} exists; choose another name=..., delete the folder, or continue it with resume=true"
        )
    newest = read_newest(folder)
    if newest is None:
        return None
    if newest.path != path and is_first_rank():
        rank_zero_warn(put_back(newest))
    content = newest.content
    then = content[HYPER_PARAMETERS]
    for key, now in to_dict(config)["model"].items():
        before = then["model"].get(key, now)
        if before != now:
            raise ConfigError(
                f"model.{key}={now}: {path} was trained with {before}; set it back, or choose another name"
            )
    if bool(then["optim"]["ema_decay"]) != bool(config.optim.ema_decay):
        raise ConfigError(
            f"optim.ema_decay={config.optim.ema_decay}: {path} was trained with {then['optim']['ema_decay']}; an "
            "average cannot be started or dropped in between; set it back, or choose another name"
        )
    return ResumePoint(newest.path, int(content["global_step"]), float(content["training"]["seconds"]))


def is_finished(config: Config, resume: ResumePoint) -> bool:
    """Whether the run has used up its steps or its time."""
    return config.trainer.is_over(resume.steps, resume.seconds)


@rank_zero_only
def prepare_run_folder(config: Config) -> None:
    """Make the folder and write down what is run.

    Raises:
        WriteError: it cannot be written.
    """
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    write_atomically(config.run_dir / "config.yaml", text.encode())


def read_result(run_dir: Path, checkpoints: BestAndLast) -> TrainResult:
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
    )
