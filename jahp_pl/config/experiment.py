"""Settings of a whole experiment: all sections, and where a run writes its files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jahp_pl.config.checks import require
from jahp_pl.config.data import DataConfig
from jahp_pl.config.loss import LossConfig
from jahp_pl.config.model import ModelConfig
from jahp_pl.config.optim import OptimConfig
from jahp_pl.config.trainer import TrainerConfig


@dataclass
class CodingConfig:
    """Number of validation images that are coded to real files, and number of pictures of them."""

    max_images: int = 8
    """Number of validation images that are entropy-coded to files and decoded again; 0 turns real coding off."""
    max_pictures: int = 4
    """Number of these images that get a picture of the original, the reconstruction and the bits per position."""

    def __post_init__(self) -> None:
        require(self.max_images >= 0, "coding.max_images", self.max_images, "must not be negative")
        require(self.max_pictures >= 0, "coding.max_pictures", self.max_pictures, "must not be negative")


@dataclass
class WandbConfig:
    """Logging to Weights & Biases; CSV logs are always written."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """offline writes to the run folder and needs no account; `wandb sync` uploads the log later."""
    project: str = "jahp_pl"
    """W&B project."""
    group: str | None = None
    """Group under which W&B shows runs together."""
    tags: list[str] = field(default_factory=list)
    """Labels of the run."""
    log_model: bool = False
    """At the end, export the best checkpoint (without validation, the last one) to `export` in the run folder, and
    upload it as an artifact."""

    def __post_init__(self) -> None:
        require(
            len(self.project) <= 128 and not set("/\\#?%:") & set(self.project),
            "wandb.project",
            self.project,
            "W&B takes names of at most 128 characters without / \\ # ? % :",
        )
        for tag in self.tags:
            require(1 <= len(tag) <= 64, "wandb.tags", self.tags, "W&B takes tags of 1 to 64 characters")


@dataclass
class Config:
    """One experiment."""

    name: str = "joint"
    """Name of the run: its folder under `output_dir` and its name on W&B."""
    output_dir: str = "runs"
    """Folder that holds the run folders."""
    seed: int = 0
    """Seed of the initial weights, the noise, and the order and position of crops."""
    resume: bool = True
    """Resume from the run folder's last checkpoint if there is one. With false, a folder that has one is refused."""
    allow_changes: bool = False
    """Resume even if settings that change the result (model.quantization, loss, data, optim, seed) differ from those
    of the checkpoint. The best loss so far is forgotten, and best.ckpt is chosen anew. This setting applies to one
    call; config.yaml does not keep it."""
    imports: list[str] = field(default_factory=list)
    """Python modules or .py files that register densities or transforms and must be imported first
    (docs/extending.md). Checkpoints and exports never import anything by themselves."""
    tensorboard: bool = False
    """Also write TensorBoard event files to `tensorboard` in the run folder; needs `pip install
    'jahp_pl[tensorboard]'`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    coding: CodingConfig = field(default_factory=CodingConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        require(self.name not in ("", ".", "..") and "/" not in self.name, "name", self.name, "must be a folder name")
        require(0 <= self.seed < 2**32, "seed", self.seed, "must be from 0 to 2^32 - 1")
        require(
            self.model.quantization != "rounded" or not self.optim.transforms_learn or self.optim.search_effort > 0,
            "model.quantization",
            self.model.quantization,
            "rounding has no gradient, so the transforms must be frozen: set optim.transform_factor=0",
        )
        require(
            not self.optim.search_effort or self.model.quantization == "rounded",
            "optim.search_effort",
            self.optim.search_effort,
            "an encoder sends integers: set model.quantization=rounded",
        )
        require(
            not self.optim.search_effort or self.data.crop_size % 16 == 0,
            "data.crop_size",
            self.data.crop_size,
            "must be a multiple of 16 for optim.search_effort",
        )
        require(
            self.loss.distortion != "ms_ssim" or self.data.crop_size >= 176,
            "data.crop_size",
            self.data.crop_size,
            "MS-SSIM with five scales needs crops of at least 176 pixels",
        )
        require(
            (self.model.num_levels > 1) == (self.loss.lmbda_max is not None),
            "model.num_levels",
            self.model.num_levels,
            "levels above 1 require loss.lmbda_max, and loss.lmbda_max requires levels above 1; set both, as in "
            "configs/overlays/variable_rate.yaml, or neither",
        )
        require(
            self.data.batch_size % self.trainer.num_ranks == 0,
            "data.batch_size",
            self.data.batch_size,
            f"must be a multiple of the {self.trainer.num_ranks} processes (trainer.devices x trainer.num_nodes)",
        )

    @property
    def run_dir(self) -> Path:
        """Folder to which this run writes everything."""
        return Path(self.output_dir) / self.name


def to_dict(config: Config) -> dict[str, Any]:
    """Convert a configuration to nested dicts of plain values, which `torch.load(weights_only=True)` accepts."""
    return dataclasses.asdict(config)
