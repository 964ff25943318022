"""Settings, batches and trainings of a data module, with a model of a single weight that records its inputs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from jahp_pl.config import DataConfig
from jahp_pl.data.module import ShardDataModule
from jahp_pl.data.pipeline import ValImage


def data_config(folder: Path, **changes: Any) -> DataConfig:
    """Configure batches of four crops from `folder`/train and images from `folder`/val, without worker processes."""
    settings: dict[str, Any] = {
        "train": [str(folder / "train")],
        "val": [str(folder / "val")],
        "crop_size": 64,
        "crops_per_photo": 1,
        "batch_size": 4,
        "num_workers": 0,
        "shuffle_buffer": 30,
    }
    return DataConfig(**(settings | changes))


def batches(module: ShardDataModule, count: int) -> list[Tensor]:
    """Draw batches and clone them, because a worker may reuse their memory."""
    return [batch.clone() for batch in itertools.islice(module.train_dataloader(), count)]  # type: ignore[union-attr]


class Recorder(lightning.LightningModule):
    """Model with a single weight that records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []
        self.validated: list[str] = []

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        self.seen.append(batch.clone())
        return (batch.mean() - self.weight) ** 2

    def validation_step(self, batch: ValImage, index: int) -> None:
        self.validated.append(batch.name)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def train_recorder(
    folder: Path, tmp_path: Path, steps: int, resume: str | None = None, **changes: Any
) -> tuple[Recorder, ShardDataModule, lightning.Trainer]:
    """Train a `Recorder` up to this step, validating after every second step; `changes` are settings of the data."""
    trainer = lightning.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, val_check_interval=2, check_val_every_n_epoch=None,
        num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    model, module = Recorder(), ShardDataModule(data_config(folder, **changes), 0)
    trainer.fit(model, module, ckpt_path=resume, weights_only=True)
    return model, module, trainer
