"""Small experiments on real photographs, for the tests of training."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from jahp_pl.config import Config, DataConfig, ModelConfig, OptimConfig, TrainerConfig
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.settings import load_config
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import TrainResult

PHOTOS = Path(__file__).parents[2] / "data" / "photos"


def write_tiny_shards(folder: Path) -> Path:
    """Write six photographs to `folder`/train and three to `folder`/val, all at most 192 pixels wide."""
    for part, count in (("train", 6), ("val", 3)):
        sources = sorted((PHOTOS / part).glob("*.jpg"))[:count]
        write_shards([str(path) for path in sources], folder / part, ShardOptions(min_side=64, max_side=192))
    return folder


SMALL = (
    "model.num_filters=8", "model.num_latents=12", "data.crop_size=64", "data.batch_size=4", "data.num_workers=0",
    "optim.learning_rate=1e-3", "trainer.accelerator=cpu", "trainer.max_steps=8", "trainer.val_every_steps=4",
    "trainer.log_every_steps=2", "coding.max_images=2", "coding.max_pictures=1",
)  # fmt: skip
"""Settings of a model of a few thousand weights, trained for eight steps."""
NOTHING_CODED = ("coding.max_images=0",)


def tiny_config(output_dir: Path, shards: Path, *settings: str) -> Config:
    """Configure a joint model of a few thousand weights, batches of four crops of 64 pixels, no worker processes."""
    data = (f"data.train=[{shards / 'train'}]", f"data.val=[{shards / 'val'}]")
    return load_config(f"output_dir={output_dir}", *data, *SMALL, *settings)


def experiment(optim: OptimConfig | None = None, **trainer: object) -> Config:
    """Configure a joint model of a few thousand weights for a module that is trained without shards."""
    return Config(
        model=ModelConfig(num_filters=8, num_latents=12),
        data=DataConfig(crop_size=64, batch_size=3),
        optim=optim or OptimConfig(learning_rate=1e-3),
        trainer=dataclasses.replace(TrainerConfig(log_every_steps=1), **trainer),  # type: ignore[arg-type]
    )


def seeded(config: Config, kind: type[CompressionModule] = CompressionModule) -> CompressionModule:
    """Create a module whose initial weights are the same at every call."""
    torch.manual_seed(3)
    return kind(config)


class FixedBatches(IterableDataset[Tensor]):
    """Batches from step `start` on, each a function of its step alone, cut from a few photographs."""

    def __init__(self, photos: Tensor, start: int = 0, damaged: tuple[int, ...] = ()) -> None:
        self.photos, self.start, self.damaged = photos, start, damaged

    def __iter__(self):  # type: ignore[no-untyped-def]
        step = self.start
        while True:
            offset = 16 * (step % 8)
            batch = self.photos[:, :, offset : offset + 64, offset : offset + 64].clone()
            if step in self.damaged:
                batch[0, 0, 0, 0] = float("inf")
            yield batch
            step += 1


def loader(photos: Tensor, start: int = 0, damaged: tuple[int, ...] = ()) -> DataLoader[Tensor]:
    """Wrap `FixedBatches` for a trainer."""
    return DataLoader(FixedBatches(photos, start, damaged), batch_size=None)


def weights(module: CompressionModule) -> list[Tensor]:
    """Copy all trained weights."""
    return [p.detach().clone() for p in module.model.parameters()]


def moments(module: CompressionModule) -> list[Tensor]:
    """Copy the state of the optimizer."""
    (optimizer,) = module.trainer.optimizers
    values = [value for p in module.model.parameters() for value in optimizer.state[p].values()]
    return [tensor.clone() for value in values for tensor in (value if isinstance(value, list) else [value])]


def all_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    """Check for equality to the last bit."""
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def rows(result: TrainResult) -> list[dict[str, str]]:
    """Read the rows of metrics.csv."""
    with (result.run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def training_losses(result: TrainResult) -> list[tuple[str, str]]:
    """Return steps and losses as they were written to metrics.csv."""
    return [(row["step"], row["train/loss"]) for row in rows(result) if row["train/loss"]]
