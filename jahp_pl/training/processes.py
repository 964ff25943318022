"""The processes that train together: who starts them, whether they are as many as asked for and of one mind."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from jahp_pl.config import Config, ConfigError, TrainerConfig, to_dict
from jahp_pl.training import TrainingError


def choose_strategy(settings: TrainerConfig) -> DDPStrategy | str:
    """Data parallelism where there are several processes."""
    if settings.num_ranks == 1:
        return "auto"
    # Buffers are constants; to broadcast them in every forward would hang where ranks validate unequal shares.
    return DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False)


def cluster_plugins() -> list[SLURMEnvironment]:
    """SLURM, where it started this process, without Lightning's requeueing: that saves wherever a signal finds it, to
    files of its own, which it prefers when it resumes."""
    is_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if is_slurm else []


def check_launch(settings: TrainerConfig) -> None:
    """Refuse to train where torchrun or SLURM started another number of processes than the settings say: some would
    wait for ever, or each would train alone in the same folder.

    Raises:
        ConfigError: so it is.
    """
    if TorchElasticEnvironment.detect():
        starter, count = "torchrun", int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        starter, count = "SLURM", int(os.environ["SLURM_NTASKS"])
    else:
        return
    if count != settings.num_ranks:
        raise ConfigError(
            f"trainer.devices={settings.devices}: with trainer.num_nodes={settings.num_nodes} these are "
            f"{settings.num_ranks} processes, but {starter} started {count}; set trainer.devices to those of one node "
            "and trainer.num_nodes to the nodes"
        )


def check_agreement(trainer: Trainer, config: Config) -> None:
    """Refuse to train where ranks resumed from different steps or were given different settings. All ranks call it.

    Raises:
        TrainingError: so it is.
    """
    settings = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()
    steps, digests = zip(*gather((trainer.global_step, settings), trainer.world_size), strict=True)
    if len(set(steps)) > 1:
        raise TrainingError(
            f"processes start from different steps, {', '.join(map(str, sorted(set(steps))))}: all machines must see "
            f"the same {config.run_dir}; put output_dir on a file system that they share"
        )
    if len(set(digests)) > 1:
        raise TrainingError("processes were given different settings; start the same command on all machines")


def gather(value: Any, world_size: int) -> list[Any]:
    """`value` of each rank, on every rank; all ranks call it."""
    values = [value] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values
