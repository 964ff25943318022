"""All settings of an experiment, with defaults and valid ranges, as plain dataclasses; `settings` reads them from
files.

The string below each field documents it. Creating a dataclass with a value out of range raises a `ConfigError` that
names the setting.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from jahp_pl.errors import JahpError

Part = TypeVar("Part")
Rung = Literal["factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint"]
Family = str
"""Name of a density, see `PARTS`."""
Transform = str
"""Name of a pair of networks, see `PARTS`."""
PARTS: dict[str, list[str]] = {
    "likelihood": ["gaussian", "laplace", "logistic"],
    "transform": ["gdn"],
    "hyper_transform": ["conv"],
    "entropy_network": ["conv"],
}
"""Valid names for these settings of a model. `distributions.register_density`, `transforms.register_transform`,
`hyperprior.register_hyper_transform` and `context.register_entropy_network` add names."""


class ConfigError(JahpError, ValueError):
    """An unusable setting; the message is one line that names the setting and the remedy."""


BUILT_IN = {setting: tuple(names) for setting, names in PARTS.items()}
"""The package's own names in `PARTS`, which cannot be replaced."""


def add_part(setting: str, name: str) -> None:
    """Add a valid name for a setting in `PARTS`.

    Raises:
        ConfigError: if the name is not an identifier, or is one of the package's own.
    """
    is_new = name not in BUILT_IN[setting]
    require(name.isidentifier() and is_new, f"model.{setting}", name, "must be an identifier that is not taken")
    if name not in PARTS[setting]:
        PARTS[setting].append(name)


def find_part(setting: str, name: str, parts: Mapping[str, Part]) -> Part:
    """Look up the part that a setting in `PARTS` names.

    Raises:
        ConfigError: if it is not registered in this process.
    """
    if name not in parts:
        raise ConfigError(f"model.{setting}={name}: is not registered in this process; import its module first")
    return parts[name]


MAX_CHANNELS = 4096
"""Largest number of filters or latents. The codec's exact sums allow about twice as many inputs of g_ep."""


def require(condition: bool, key: str, value: object, remedy: str) -> None:
    """Raise a one-line `ConfigError` unless the condition holds.

    Args:
        condition: whether the value is usable.
        key: dotted name of the setting.
        value: the unusable value.
        remedy: what the value must be, for the message.
    """
    if not condition:
        raise ConfigError(f"{key}={value}: {remedy}")


def require_type(value: object, kind: type, remedy: str) -> None:
    """Raise a one-line `ConfigError` unless a value is of the type of configuration that a function takes.

    Args:
        value: what a program passed.
        kind: the dataclass that is needed.
        remedy: how to get one, for the message.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"config: must be a {kind.__name__}, not {type(value).__name__}; {remedy}")


@dataclass
class ModelConfig:
    """Architecture: rung of the paper's ladder, widths, density of the latents."""

    rung: Rung = "joint"
    """factorized (Balle 2018, no hyperprior) < scale_hyperprior (Balle 2018) < mean_scale_hyperprior < joint (the
    paper's full model); context is the autoregressive model alone, without side information."""
    num_filters: int = 192
    """N: channels of the hidden layers and of the hyper-latents z."""
    num_latents: int = 192
    """M: channels of the latents y. The paper uses 192 for the low rates and 320 for the high ones."""
    likelihood: Family = "gaussian"
    """Density of one latent before it is convolved with U(-1/2, 1/2)."""
    num_components: int = 1
    """K: mixture components per latent; 1 is a single density."""
    quantization: Literal["noise", "mixed", "rounded"] = "noise"
    """What replaces rounding in training. noise: y + U(-1/2, 1/2) everywhere, as in the paper. mixed: noise for the
    rate and the context, straight-through rounding for the reconstruction (Minnen & Singh 2020). rounded:
    rounding as in a file, which gives g_a and h_a no gradient: for a last phase (configs/overlays/entropy_phase.yaml)
    in which they stay as they are and the rest of the entropy model learns the integers that it will code."""
    transform: Transform = "gdn"
    """Layers of g_a and g_s. gdn: as in the paper. docs/extending.md shows how to add others."""
    hyper_transform: str = "conv"
    """Layers of h_a and h_s. conv: as in the paper. docs/extending.md shows how to add others."""
    entropy_network: str = "conv"
    """Layers of g_ep. conv: as in the paper. docs/extending.md shows how to add others."""
    num_levels: int = 1
    """S: rate levels of a variable-rate model, whose latents are scaled by a gain per level; it can also code at any
    rate between two levels. 1 is a single-rate model; with more, set loss.lmbda_max."""

    def __post_init__(self) -> None:
        for setting, names in PARTS.items():
            require(
                getattr(self, setting) in names,
                f"model.{setting}",
                getattr(self, setting),
                f"must be one of {', '.join(names)}; for your own, import its module first: "
                "with the setting imports=[FILE.py] in `jahp train`, with --import FILE.py in other commands",
            )
        for setting in ("num_filters", "num_latents"):
            value = getattr(self, setting)
            require(1 <= value <= MAX_CHANNELS, f"model.{setting}", value, f"must be from 1 to {MAX_CHANNELS}")
        require(1 <= self.num_components <= 16, "model.num_components", self.num_components, "must be from 1 to 16")
        require(1 <= self.num_levels <= 64, "model.num_levels", self.num_levels, "must be from 1 to 64")
        require(
            self.rung != "factorized" or (self.likelihood, self.num_components) == ("gaussian", 1),
            "model.rung",
            self.rung,
            "the factorized rung learns a free density per channel; leave model.likelihood and model.num_components "
            "at their defaults",
        )


@dataclass
class LossConfig:
    """The training objective R + lmbda * D, with R in bits per pixel."""

    distortion: Literal["mse", "ms_ssim"] = "mse"
    """D: 255^2 * MSE of images in [0, 1], or 1 - MS-SSIM."""
    lmbda: float = 0.0130
    """Trade-off. Published for mse: .0018 .0035 .0067 .0130 .0250 .0483 .0932 .1800; for ms_ssim: 2.40 4.58 8.73 16.64
    31.73 60.50 115.37 220.00. In a variable-rate model (model.num_levels > 1), the trade-off of the lowest level."""
    lmbda_max: float | None = None
    """Trade-off of the highest level of a variable-rate model; the levels between are evenly spaced in log. null for a
    single-rate model."""
    level_weighting: float = 0.6
    """Exponent p of the weight (lambda_middle / lambda)^p of a crop in the loss of a variable-rate model. Rates grow
    about as lambda^0.6, so at 0.6 a relative change of the rate counts the same at every level; at 0 the highest levels
    dominate."""

    def __post_init__(self) -> None:
        require(0 < self.lmbda < math.inf, "loss.lmbda", self.lmbda, "must be positive and finite")
        require(
            self.lmbda_max is None or self.lmbda < self.lmbda_max < math.inf,
            "loss.lmbda_max",
            self.lmbda_max,
            "must be finite and larger than loss.lmbda, the trade-off of the lowest level",
        )
        require(0 <= self.level_weighting <= 2, "loss.level_weighting", self.level_weighting, "must be from 0 to 2")

    @property
    def lmbda_ratio(self) -> float:
        """Ratio of the largest lambda to the smallest; 1 for a single-rate model."""
        return 1.0 if self.lmbda_max is None else self.lmbda_max / self.lmbda

    @property
    def lmbda_middle(self) -> float:
        """Geometric mean of the smallest and the largest lambda."""
        return self.lmbda * math.sqrt(self.lmbda_ratio)

    def lmbda_at(self, share: float) -> float:
        """Return lambda of the level at `share` of the way from the lowest (0) to the highest (1)."""
        return self.lmbda * math.pow(self.lmbda_ratio, share)

    def objective_at(self, share: float) -> LossConfig:
        """Return the objective of that level alone, see `lmbda_at`."""
        return LossConfig(self.distortion, self.lmbda_at(share))


@dataclass
class DataConfig:
    """Training and validation shards, and how crops are drawn from them."""

    train: list[str] = field(default_factory=list)
    """Training shards: folders written by `jahp shards`, .tar paths, globs, brace patterns, http(s):, s3: or pipe:
    URLs; a URL that ends in / is a folder with an index.json."""
    val: list[str] = field(default_factory=list)
    """Validation shards, in the same forms; whole images are used. If empty, there is no validation."""
    crop_size: int = 256
    """Side of the square training crops, in pixels."""
    crops_per_photo: int = 4
    """Crops cut from a photograph each time it is decoded; they go to different batches of a device."""
    batch_size: int = 8
    """Crops per optimizer step, summed over all devices."""
    num_workers: int = 2
    """Processes per device that decode and crop. 0 decodes in the training process."""
    shuffle_buffer: int = 1000
    """Compressed samples that each worker holds to shuffle from."""
    max_val_images: int = 0
    """Use only the first this many validation images; 0 means all."""
    timeout: float = 30.0
    """Seconds without progress after which a download is abandoned. http(s) is tried three times; then the shard counts
    as broken and is skipped."""
    cache_dir: str | None = None
    """Folder on a local disk in which all processes of the machine keep downloaded shards; null turns caching off."""
    cache_bytes: int = 100 * 2**30
    """Maximum size of `cache_dir` in bytes; the least recently used shards are removed."""
    max_broken_share: float = 0.5
    """Stop if more than this share of the last 1000 photographs, or of the last 100 shards, that a device drew is
    broken; 1 never stops."""

    def __post_init__(self) -> None:
        require(self.crop_size >= 16, "data.crop_size", self.crop_size, "must be at least 16")
        require(self.crop_size % 16 == 0, "data.crop_size", self.crop_size, "must be a multiple of 16")
        require(self.batch_size >= 1, "data.batch_size", self.batch_size, "must be at least 1")
        require(self.num_workers >= 0, "data.num_workers", self.num_workers, "must not be negative")
        require(self.shuffle_buffer >= 1, "data.shuffle_buffer", self.shuffle_buffer, "must be at least 1")
        require(self.crops_per_photo >= 1, "data.crops_per_photo", self.crops_per_photo, "must be at least 1")
        require(0 < self.timeout < math.inf, "data.timeout", self.timeout, "must be positive and finite")
        require(self.cache_bytes >= 1, "data.cache_bytes", self.cache_bytes, "must be at least 1")
        require(0 <= self.max_broken_share <= 1, "data.max_broken_share", self.max_broken_share, "must be from 0 to 1")
        require(self.max_val_images >= 0, "data.max_val_images", self.max_val_images, "must not be negative")


@dataclass
class OptimConfig:
    """Initial weights, and the one optimizer of all parameters."""

    start_from: str | None = None
    """Run folder, checkpoint, export or bundled model whose weights initialize every network that fits, to be trained
    further with another rung, density, lambda or distortion. The other networks start as `initialization` says."""
    start_networks: Literal["fitting", "transforms"] = "fitting"
    """fitting: all networks of `start_from` that fit. transforms: only g_a and g_s, so that the entropy models of
    several rungs start equal, whichever rung the transforms were trained with."""
    initialization: Literal["random", "klt"] = "random"
    """random: PyTorch's default. klt: a linear transform coder for photographs, which has 30 dB before the first step
    instead of 6, and estimators of means and scales (see `initialization`); it decides the result of short runs."""
    optimizer: Literal["adam", "soap"] = "adam"
    """adam: as in the paper. soap: Adam in the eigenbasis of Shampoo's preconditioner (see `training.soap`). It learns
    more per step once a model is trained, but not from the start, and a step takes longer, by a fifth on one CPU core
    with N = 128 and M = 192."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    transform_factor: float = 1.0
    """Learning rate of g_a and g_s relative to that of the entropy model. Use less than 1 if they start near a good
    transform and the densities do not; 0 freezes them, and a step then runs g_a once and g_s not at all."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant keeps the peak; cosine falls to `final_factor` of it over the rest of the run."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly from 0 to its peak."""
    final_factor: float = 0.01
    """Final learning rate of the cosine schedule, as a fraction of the peak."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global L2 norm; 0 turns clipping off."""
    skip_norm: float = 0.0
    """Skip a step whose gradient has at least this L2 norm, as if it were not finite; 0 skips only non-finite ones. One
    crop on which the transforms overshoot can undo an hour of training; about twenty times train/grad_norm is a good
    value."""
    ema_decay: float = 0.0
    """Decay per step of a moving average of the weights, which validation and export use; 0 turns it off."""

    def __post_init__(self) -> None:
        rate_is_usable = 0 < self.learning_rate < math.inf
        require(rate_is_usable, "optim.learning_rate", self.learning_rate, "must be positive and finite")
        require(
            0 <= self.transform_factor < math.inf,
            "optim.transform_factor",
            self.transform_factor,
            "must be finite and not negative",
        )
        require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "must not be negative")
        require(0 <= self.final_factor <= 1, "optim.final_factor", self.final_factor, "must be from 0 to 1")
        require(0 <= self.clip_norm < math.inf, "optim.clip_norm", self.clip_norm, "must be finite and not negative")
        require(0 <= self.skip_norm < math.inf, "optim.skip_norm", self.skip_norm, "must be finite and not negative")
        require(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "must be from 0 to below 1")

    @property
    def transforms_learn(self) -> bool:
        """Whether steps change g_a and g_s. If not, all gradients come from the rate, and no reconstruction is
        needed."""
        return self.transform_factor != 0


@dataclass
class TrainerConfig:
    """Length of the run, hardware, and intervals of logging and validation."""

    max_steps: int = 1_000_000
    """Total number of optimizer steps; there are no epochs."""
    max_time: str | None = None
    """End after DD:HH:MM:SS of training, summed over all sessions of the run, even if steps are left. A cosine schedule
    then anneals towards whichever limit comes first."""
    session_time: str | None = None
    """Stop with a checkpoint after DD:HH:MM:SS of one session, for jobs of limited length; the same command continues.
    Steps, schedule and result are those of a run without stops."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train; auto uses a GPU if there is one."""
    devices: int = 1
    """Processes per node, one per GPU (or CPU rank)."""
    num_nodes: int = 1
    """Number of machines."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto uses bf16-mixed if the hardware computes in bfloat16, otherwise 32-true."""
    deterministic: bool = False
    """Use only deterministic operations of torch, and fail where there is none."""
    val_every_steps: int = 5000
    """Optimizer steps between two validations."""
    log_every_steps: int = 50
    """Optimizer steps between two rows of metrics."""
    keep_checkpoints: int = 2
    """Number of latest checkpoints to keep; if the newest is damaged, a run continues from the one before."""
    max_skipped_steps: int = 20
    """Stop the run after this many consecutive optimizer steps with a non-finite loss or gradient."""
    compile: bool = False
    """Compile the training forward with torch.compile, which takes minutes at the start and makes steps faster."""
    channels_last: bool = False
    """Keep images and transforms in channels_last memory format."""

    def __post_init__(self) -> None:
        for name in (
            "max_steps", "devices", "num_nodes", "val_every_steps", "log_every_steps", "keep_checkpoints",
            "max_skipped_steps",
        ):  # fmt: skip
            require(getattr(self, name) >= 1, f"trainer.{name}", getattr(self, name), "must be at least 1")
        for name in ("max_time", "session_time"):
            parts = (getattr(self, name) or "0:0:0:1").split(":")
            require(
                len(parts) == 4 and all(p.isdecimal() for p in parts) and int("".join(parts)) > 0,
                f"trainer.{name}",
                getattr(self, name),
                "must read DD:HH:MM:SS, e.g. 00:00:10:00 for ten minutes; put ten days or more in quotes, "
                'like "10:00:00:00", because YAML would read a number',
            )

    @property
    def num_ranks(self) -> int:
        """Processes that train together, over all nodes."""
        return self.devices * self.num_nodes

    def max_seconds(self) -> float:
        """Return `max_time` in seconds; infinity if it is not set."""
        return _seconds(self.max_time)

    def session_seconds(self) -> float:
        """Return `session_time` in seconds; infinity if it is not set."""
        return _seconds(self.session_time)

    def is_over(self, steps: int, seconds: float) -> bool:
        """Check whether a run with this many steps and seconds has reached either limit."""
        return steps >= self.max_steps or seconds >= self.max_seconds()


def _seconds(time: str | None) -> float:
    if time is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part) for part in time.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


@dataclass
class CodingConfig:
    """Which validation images are coded to real files, and how many pictures are saved."""

    max_images: int = 8
    """Validation images that are entropy-coded to files and decoded again; 0 turns real coding off."""
    max_pictures: int = 4
    """How many of these images get a picture of the original, the reconstruction and the bits per position."""

    def __post_init__(self) -> None:
        require(self.max_images >= 0, "coding.max_images", self.max_images, "must not be negative")
        require(self.max_pictures >= 0, "coding.max_pictures", self.max_pictures, "must not be negative")


@dataclass
class WandbConfig:
    """Weights & Biases; CSV logs are always written."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """offline writes to the run folder and needs no account; `wandb sync` sends it later."""
    project: str = "jahp_pl"
    """W&B project."""
    group: str | None = None
    """Group under which W&B shows runs together."""
    tags: list[str] = field(default_factory=list)
    """Labels of the run."""
    log_model: bool = False
    """At the end, export the best checkpoint (the last one, without validation) to `export` in the run folder and
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
    """Continue from the run folder's last checkpoint if there is one; false refuses a folder that has one."""
    allow_changes: bool = False
    """Continue even if settings that change the result (model.quantization, loss, data, optim, seed) differ from those
    of the checkpoint. The best loss so far is forgotten, so best.ckpt is chosen again. Pass it each time; config.yaml
    does not keep it."""
    imports: list[str] = field(default_factory=list)
    """Python modules or .py files to import first, because they register densities or transforms
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
            self.model.quantization != "rounded" or not self.optim.transforms_learn,
            "model.quantization",
            self.model.quantization,
            "rounding has no gradient, so the transforms must be frozen: set optim.transform_factor=0",
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
            "levels above 1 require loss.lmbda_max, and loss.lmbda_max requires levels above 1",
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
    """Convert to plain nested dicts, for logs and for checkpoints (`torch.load(weights_only=True)` accepts them)."""
    return dataclasses.asdict(config)


def model_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Rebuild the architecture from `to_dict(config)["model"]`.

    Raises:
        ConfigError: if a key or a word is unknown to this version, a type is wrong, or a value is out of range.
    """
    remedy = "is unknown to this version of jahp_pl; upgrade jahp_pl to read this model"
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"model.{unknown[0]}: {remedy}")
    for name, hint in typing.get_type_hints(ModelConfig).items():
        words = typing.get_args(hint)
        if name in values:
            require(
                values[name] in words if words else type(values[name]) is hint, f"model.{name}", values[name], remedy
            )
    return ModelConfig(**values)
