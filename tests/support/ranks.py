"""Work of each rank for test_ddp, which starts it with torchrun: -m tests.support.ranks FOLDER SHARDS

Every rank writes FOLDER/rank-R.pt; the same functions in one process give the expected results.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jahp_pl import model as model_module
from jahp_pl.config import Config
from jahp_pl.training import TrainingError, run
from jahp_pl.training.lightning_warnings import only_useful_messages
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.processes import check_agreement
from jahp_pl.training.run import build_trainer, train
from tests.conftest import DATA, read_image
from tests.support.tiny_runs import loader, tiny_config, weights

NUM_STEPS, DAMAGED_STEP, GLOBAL_BATCH = 20, 7, 4


class GlobalNoise:
    """Noise source that draws noise for the whole batch, from which each rank takes its images' share."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size, self.calls = rank, world_size, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls)
        noise = torch.rand(len(x) * self.world_size, *x.shape[1:], generator=generator) - 0.5
        return x + noise[self.rank * len(x) : (self.rank + 1) * len(x)]


class Watched(CompressionModule):
    """Module that records crops, validation images and the last gradients."""

    def __init__(self, config: Config, start: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(config, start)
        self.crops: list[bytes] = []
        self.validated: list[tuple[int, str]] = []
        self.last_gradients: list[Tensor] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.crops += [crop.numpy().tobytes() for crop in batch]
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validated.append((self.global_step, batch.name))
        super().validation_step(batch, batch_idx, dataloader_idx)

    def on_train_end(self) -> None:
        self.last_gradients = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]


def fixed_steps(folder: Path, shards: Path, rank: int, world_size: int, optimizer: str = "adam") -> dict[str, Any]:
    """Train for twenty steps on fixed global batches of four images, one of them damaged, with the real trainer."""
    settings = ("data.val=[]", f"trainer.max_steps={NUM_STEPS}", "optim.ema_decay=0.9", "optim.warmup_steps=5")
    more = (f"trainer.devices={world_size}", "trainer.precision=32-true", "optim.learning_rate=1e-4")
    config = tiny_config(folder, shards, *settings, *more, f"optim.optimizer={optimizer}")
    names = ("dogs", "neon", "peaks", "stonehenge")
    photos = torch.stack([read_image(DATA / "photos" / "val" / f"{name}.jpg")[:, :256, :256] for name in names])
    share = GLOBAL_BATCH // world_size
    is_damaged = rank == world_size - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "add_uniform_noise", GlobalNoise(rank, world_size))
        torch.manual_seed(3)
        module = Watched(config)
        start = weights(module)
        batches = loader(photos[rank * share : (rank + 1) * share], damaged=(DAMAGED_STEP,) if is_damaged else ())
        with only_useful_messages():
            build_trainer(config, [], []).fit(module, batches)
    return {
        "start": start,
        "weights": weights(module),
        "average": [p.detach().clone() for p in module.evaluated_model.parameters()],
        "gradients": module.last_gradients,
        "skipped": module.skipped_steps,
        "loss": module.latest.loss if module.latest is not None else None,
    }


def real_run(config: Config) -> dict[str, Any]:
    """Run `train`, and return what this rank saw."""
    modules: list[Watched] = []

    def make(config: Config, start: Mapping[str, nn.Module] | None) -> Watched:
        modules.append(Watched(config, start))
        return modules[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CompressionModule", make)
        metrics = train(config).metrics
    return {"crops": modules[0].crops, "validated": modules[0].validated, "metrics": metrics}


def real_config(folder: Path, shards: Path, num_images: int, devices: int) -> Config:
    """Configure four steps, a validation after two and four, and a number of images."""
    settings = (f"trainer.devices={devices}", f"data.max_val_images={num_images}", f"name=images-{num_images}")
    more = ("trainer.max_steps=4", "trainer.val_every_steps=2", "coding.max_images=8", "optim.ema_decay=0.9")
    return tiny_config(folder, shards, *settings, *more, "trainer.precision=32-true", "wandb.mode=offline")


def refusal(step: int, config: Config, world_size: int) -> str:
    """Return the message of `check_agreement` for ranks that resume from this step with this configuration."""
    try:
        check_agreement(SimpleNamespace(global_step=step, world_size=world_size), config)  # type: ignore[arg-type]
    except TrainingError as error:
        return str(error)
    return ""


def main(folder: Path, shards: Path) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    seen: dict[str, Any] = {"fixed": fixed_steps(folder, shards, rank, world_size)}
    seen["soap"] = fixed_steps(folder / "soap", shards, rank, world_size, "soap")
    same, other = (real_config(folder, shards, number, world_size) for number in (1, 2 + rank))
    cases = [(5, same), (5 * rank, same), (5, other)]
    seen["refusals"] = [refusal(step, config, world_size) for step, config in cases]
    for num_images in (3, 1):
        seen[f"images-{num_images}"] = real_run(real_config(folder, shards, num_images, world_size))
    torch.save(seen, folder / f"rank-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
