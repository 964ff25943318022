"""Settings of the model: the section `model`."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from jahp_pl.config.checks import ConfigError, require
from jahp_pl.config.former_names import with_current_names
from jahp_pl.config.parts import PARTS, check_part

if TYPE_CHECKING:
    from torch import Tensor

Number = TypeVar("Number", float, "Tensor")
EntropyModelName = Literal["factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint"]
DensityName = str
"""Name of a density, see `parts.PARTS`."""
TransformName = str
"""Name of a pair of transforms g_a and g_s, see `parts.PARTS`."""

MAX_CHANNELS = 4096
"""Maximum of num_filters and num_latents. The codec's exact sums would allow about twice as many inputs of g_ep."""


@dataclass
class ModelConfig:
    """Architecture of the model: entropy model, widths, density of the latents."""

    entropy_model: EntropyModelName = "joint"
    """One of the paper's entropy models: factorized (no hyperprior, Balle 2018), scale_hyperprior (Balle 2018),
    mean_scale_hyperprior, context (only the autoregressive context model, no side information), or joint (hyperprior
    and context, the paper's full model)."""
    num_filters: int = 192
    """N: number of channels of the hidden layers and of the hyper-latents z."""
    num_latents: int = 192
    """M: number of channels of the latents y. The paper uses 192 for low rates and 320 for high rates."""
    likelihood: DensityName = "gaussian"
    """Density of one latent before it is convolved with U(-1/2, 1/2)."""
    num_components: int = 1
    """K: number of mixture components per latent; 1 is a single density."""
    quantization: Literal["noise", "mixed", "rounded"] = "noise"
    """Operation that replaces rounding in training. noise: y + U(-1/2, 1/2) everywhere, as in the paper. mixed:
    noise for the rate and the context, straight-through rounding for the reconstruction (Minnen & Singh 2020).
    rounded: rounding as in a file, so that g_a and h_a get no gradient. It is meant for a last phase
    (configs/overlays/entropy_phase.yaml) in which these stay fixed and the rest of the entropy model learns from the
    integers that it will code."""
    transform: TransformName = "gdn"
    """Layers of g_a and g_s. gdn: as in the paper. docs/extending.md shows how to add others."""
    hyper_transform: str = "conv"
    """Layers of h_a and h_s. conv: as in the paper. docs/extending.md shows how to add others."""
    entropy_network: str = "conv"
    """Layers of g_ep. conv: as in the paper. docs/extending.md shows how to add others."""
    entropy_width: int = 0
    """Number that takes the place of M in the widths of the hidden layers of h_s and g_ep; 0 stands for num_latents.
    For a model that was widened (`optim.start_from`), it is the number of latents from before."""
    num_levels: int = 1
    """S: number of rate levels. A variable-rate model (S > 1) scales its latents by a gain per level, can also code at
    any rate between two levels, and needs loss.lmbda_max. 1 is a single-rate model."""

    def __post_init__(self) -> None:
        for setting in PARTS:
            check_part(setting, getattr(self, setting))
        for setting in ("num_filters", "num_latents"):
            value = getattr(self, setting)
            require(1 <= value <= MAX_CHANNELS, f"model.{setting}", value, f"must be from 1 to {MAX_CHANNELS}")
        require(
            0 <= self.entropy_width <= MAX_CHANNELS, "model.entropy_width", self.entropy_width,
            f"must be from 0 to {MAX_CHANNELS}; 0 is model.num_latents",
        )  # fmt: skip
        require(1 <= self.num_components <= 16, "model.num_components", self.num_components, "must be from 1 to 16")
        require(1 <= self.num_levels <= 64, "model.num_levels", self.num_levels, "must be from 1 to 64")
        require(
            self.entropy_model != "factorized" or (self.likelihood, self.num_components) == ("gaussian", 1),
            "model.entropy_model",
            self.entropy_model,
            "the factorized model learns a free density per channel; leave model.likelihood and model.num_components "
            "at their defaults",
        )

    @property
    def has_hyperprior(self) -> bool:
        """Whether the model has h_a and h_s, and thus hyper-latents z."""
        return self.entropy_model not in ("factorized", "context")

    @property
    def has_context(self) -> bool:
        """Whether the model has g_cm and g_ep."""
        return self.entropy_model in ("context", "joint")

    @property
    def entropy_channels(self) -> int:
        """Number of channels from which the widths of the hidden layers of h_s and g_ep are computed; usually M."""
        return self.entropy_width or self.num_latents

    def level_at(self, level_share: Number) -> Number:
        """Return the level, from 0 to S - 1, at a place between the lowest level (0) and the highest (1).

        `LossConfig.lmbda_at` returns its lambda.
        """
        return level_share * (self.num_levels - 1)

    def share_of(self, level: float) -> float:
        """Return the place, from 0 to 1, of a level of a variable-rate model: the inverse of `level_at`."""
        return level / (self.num_levels - 1)


def model_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Create the settings of the model from `to_dict(config)["model"]` of any version.

    Raises:
        ConfigError: if this version does not know a key or a name, a type is wrong, or a value is out of range.
    """
    values = with_current_names(values, "model")
    remedy = "is unknown to this version of jahp_pl; upgrade jahp_pl to read this model"
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    if unknown := sorted(str(name) for name in values if name not in known):
        raise ConfigError(f"model.{unknown[0]}: {remedy}")
    for name, hint in typing.get_type_hints(ModelConfig).items():
        words = typing.get_args(hint)
        if name in values:
            require(
                values[name] in words if words else type(values[name]) is hint, f"model.{name}", values[name], remedy
            )
    return ModelConfig(**values)
