"""Logs a run to Weights & Biases: metrics, histograms and the final model, in one W&B run over all sessions."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.config import Config, ConfigError, to_dict
from jahp_pl.errors import first_line
from jahp_pl.files.atomic import write_atomically
from jahp_pl.model_io.export import export_from
from jahp_pl.training.callbacks import CodingCallback

NUM_BINS = 64
"""Number of bins of a histogram."""


def wandb_logger(config: Config) -> WandbLogger | None:
    """Create a W&B logger with its files in the run folder; None if `wandb.mode` is disabled.

    Only rank 0 communicates with W&B. A resumed run continues the same W&B run. If the server cannot be reached, the
    run is kept offline with a warning, because a lost log must not end a training run.

    Raises:
        ConfigError: if W&B rejects its settings, some of which it reads from environment variables.
    """
    if config.wandb.mode == "disabled":
        return None
    from wandb.errors import UsageError

    try:
        run = _wandb_run(config)
    except (ValueError, UsageError) as error:
        lines = str(error).splitlines()
        raise ConfigError(
            f"wandb.mode={config.wandb.mode}: W&B refuses its settings, {' '.join(lines[1:3] or lines)}; correct the "
            "environment variables WANDB_..., or set wandb.mode=disabled"
        ) from None
    return WandbLogger(name=config.name, save_dir=config.run_dir, project=config.wandb.project, experiment=run)


@rank_zero_only
def _wandb_run(config: Config) -> Any:
    """Start or continue the W&B run."""
    import wandb

    # Silent because W&B's output would break the progress line; its files are in the run folder anyway. At the end, it
    # waits up to two minutes for an unreachable server; even then the run folder has everything.
    settings = wandb.Settings(silent=True, console="off", finish_timeout=120)
    id_file = config.run_dir / "wandb" / "run_id"
    run_id = _wandb_id(id_file)
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
        run = start(mode=config.wandb.mode, id=run_id)
    except (wandb.Error, OSError) as error:
        rank_zero_warn(
            f"W&B cannot be reached ({first_line(error)}); the run is kept offline; upload it later with "
            f"`wandb sync {shlex.quote(str(config.run_dir / 'wandb'))}/offline-run-*`"
        )
        wandb.teardown()
        # A new id is needed because W&B's service may still hold the failed run under the old one.
        run_id = secrets.token_hex(4)
        run = start(mode="offline", id=run_id)
    if run_id != os.environ.get("WANDB_RUN_ID"):
        write_atomically(id_file, run_id.encode())
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return run


def _wandb_id(file: Path) -> str:
    """Return the run's id on W&B: from a sweep's agent, from the previous session, or a new one."""
    if given := os.environ.get("WANDB_RUN_ID"):
        return given
    if file.exists():
        stored = file.read_bytes().decode(errors="replace")
        if re.fullmatch(r"[\w.-]{1,64}", stored, re.ASCII):
            return stored
        rank_zero_warn(f"{file}: does not hold the id of a W&B run; this session is logged as a new run")
    return secrets.token_hex(4)


@rank_zero_only
def finish_wandb(logger: WandbLogger) -> None:
    """Close the W&B run, so that its files are complete and a later run in this process is separate."""
    logger.experiment.finish()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Convert nested settings to one dictionary with dotted keys, as on the command line and in sweep files."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


@rank_zero_only
def log_export(logger: WandbLogger, checkpoint: Path, folder: Path) -> None:
    """Export a checkpoint to `folder` and upload it as an artifact of type model, see `artifact_name`.

    If no codec can use the weights, or W&B cannot take the files, warn and upload nothing; this must not end a training
    run.

    Raises:
        WriteError: if the disk is full.
    """
    import wandb

    try:
        codec = export_from(checkpoint, folder, overwrite=True)
    except UnusableModelError as error:
        rank_zero_warn(f"{checkpoint}: not uploaded to W&B, because no codec can use these weights: {error}")
        return
    run = logger.experiment
    metadata = {"fingerprint": codec.fingerprint.hex(), "checkpoint": checkpoint.name}
    artifact = wandb.Artifact(artifact_name(run.name), type="model", metadata=metadata)
    try:
        artifact.add_dir(str(folder))  # W&B first copies the files to a folder of its own
        run.log_artifact(artifact)
    except (wandb.Error, OSError) as error:
        rank_zero_warn(f"{folder}: not uploaded to W&B ({first_line(error)}); the export itself is complete")


def artifact_name(run_name: str) -> str:
    """Return the name of a run's export on W&B, which takes at most 128 letters, digits and `_-.` in a name."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "_", run_name)[:100] + "-export"


class HistogramCallback(Callback):
    """Callback that sends histograms of the images of `coding` to W&B at each validation.

    | name | values |
    |---|---|
    | histograms/latents | y_hat without zeros |
    | histograms/bits_per_latent | bits of each latent, without zeros |
    | histograms/bits_per_channel | bits per pixel of each latent channel, mean over images |

    Args:
        coding: callback that precedes this one in the trainer's list.
    """

    def __init__(self, coding: CodingCallback) -> None:
        self.coding = coding

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and send the histograms."""
        coded = self.coding.coded
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not coded or not loggers:
            return
        import wandb

        latents = np.concatenate([image.y_hat.flatten().numpy() for image in coded])
        bits = np.concatenate([image.bits_y.flatten().numpy() for image in coded])
        channels = np.mean(
            [image.bits_y.sum((1, 2)).numpy() / (image.row.width * image.row.height) for image in coded], axis=0
        )
        values = {"latents": latents[latents != 0], "bits_per_latent": bits[bits > 0], "bits_per_channel": channels}
        histograms = {
            f"histograms/{name}": wandb.Histogram(np_histogram=np.histogram(of, NUM_BINS))
            for name, of in values.items()
            if len(of)
        }
        for logger in loggers:
            logger.log_metrics(histograms, step=trainer.global_step)  # type: ignore[arg-type]
