"""Sets up the processes of distributed training, and checks their number, steps and settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from jahp_pl.config import Config, ConfigError, TrainerConfig, to_dict
from jahp_pl.text import count_of
from jahp_pl.training import TrainingError

FEWEST_PROCESSES = 8
"""Number of processes that are allowed even on a machine with fewer cores."""


def choose_strategy(settings: TrainerConfig) -> DDPStrategy | str:
    """Return DDP if there are several processes, otherwise "auto"."""
    if settings.num_ranks == 1:
        return "auto"
    # Buffers are constants; broadcasting them in every forward pass would hang if ranks validate unequal shares.
    return DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False)


def cluster_plugins() -> list[SLURMEnvironment]:
    """Return the SLURM plugin if SLURM launched this process, without Lightning's requeueing.

    Requeueing would save wherever a signal arrives, even within a step, to separate files that take precedence when
    resuming.
    """
    is_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if is_slurm else []


def check_launch(settings: TrainerConfig) -> None:
    """Refuse to train if torchrun or SLURM launched a different number of processes than the settings state.

    Otherwise some would wait forever, or each would train alone in the same folder. Without a launcher, Lightning
    starts as many processes as the settings state, so their number is limited.

    Raises:
        ConfigError: if the process counts differ, or there are too many for this machine.
    """
    if TorchElasticEnvironment.detect():
        launcher, count = "torchrun", int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        launcher, count = "SLURM", int(os.environ["SLURM_NTASKS"])
    else:
        cores = os.cpu_count() or 1
        if settings.devices > (most := max(FEWEST_PROCESSES, 2 * cores)):
            raise ConfigError(
                f"trainer.devices={settings.devices}: is more than the {most} processes that are allowed on a machine "
                f"with {count_of(cores, 'core')}; give its number of GPUs"
            )
        return
    if count != settings.num_ranks:
        raise ConfigError(
            f"trainer.devices={settings.devices}: with trainer.num_nodes={settings.num_nodes} this makes "
            f"{settings.num_ranks} processes, but {launcher} started {count}; set trainer.devices to the processes "
            "per node and trainer.num_nodes to the number of nodes"
        )


@contextmanager
def device_errors(settings: TrainerConfig) -> Iterator[None]:
    """Convert Lightning's errors about missing devices to one line.

    Raises:
        ConfigError: if the machine lacks the devices that the settings ask for.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(
            f"trainer.accelerator={settings.accelerator}, trainer.devices={settings.devices}: this machine lacks them "
            f"({' '.join(str(error).split())}); set them to what it has"
        ) from None


def check_agreement(trainer: Trainer, config: Config) -> None:
    """Refuse to train if ranks resumed from different steps or have different settings. All ranks must call it.

    Raises:
        TrainingError: if steps or settings differ between ranks.
    """
    settings = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()
    steps, digests = zip(*gather((trainer.global_step, settings), trainer.world_size), strict=True)
    if len(set(steps)) > 1:
        raise TrainingError(
            f"processes start from different steps: {', '.join(map(str, sorted(set(steps))))}; all machines must "
            f"see the same {config.run_dir}; put output_dir on a shared file system"
        )
    if len(set(digests)) > 1:
        raise TrainingError("processes have different settings; start the same command on all machines")


def gather(value: Any, world_size: int) -> list[Any]:
    """Return the `value` of each rank, in the order of ranks, on every rank; all ranks must call it."""
    values = [value] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values
