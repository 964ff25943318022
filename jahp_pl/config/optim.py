"""Settings of the initial weights and the optimizer: the section `optim`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jahp_pl.config.checks import require


@dataclass
class OptimConfig:
    """Initial weights, and the single optimizer for all parameters."""

    start_from: str | None = None
    """Run folder, checkpoint, export or bundled model from which to start, e.g. to train it with another entropy model,
    density, lambda or distortion. Its weights initialize every network that fits; the other networks start as the
    setting `initialization` says. If only model.num_latents is larger, and model.entropy_width is its number of
    latents, the model is widened: it starts with the same pictures, and with new latents for training to use."""
    start_networks: Literal["fitting", "transforms"] = "fitting"
    """fitting: take all networks of `start_from` that fit. transforms: take only g_a and g_s, so that several
    entropy models start on equal terms, whichever one the transforms were trained with."""
    initialization: Literal["random", "klt"] = "random"
    """random: PyTorch's default. klt: a linear transform coder for photographs, which reaches 29 dB before the first
    step instead of 6 at a lambda of .0130, and 27 at .0035, and an entropy model that starts as an estimator of means
    and scales (see `initialization`); decisive in short runs."""
    optimizer: Literal["adam", "soap"] = "adam"
    """adam: as in the paper. soap: Adam in the eigenbasis of Shampoo's preconditioner (see `training.soap`). It learns
    more per step when it continues from a trained model, but not from the start; a step takes a fifth longer on one CPU
    core with N = 128 and M = 192."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    transform_factor: float = 1.0
    """Learning rate of g_a and g_s relative to the entropy model's. Use less than 1 if they start as a good
    transform but the entropy model does not start well; 0 freezes them, and a step then runs g_a once and g_s not at
    all."""
    search_effort: int = 0
    """If not 0, only the decoder learns, from latents as an encoder sends them: those of half of the crops are found by
    the encoder's search with this effort (`jahp compress --effort`), the others are rounded. g_a, h_a and the gains
    before rounding stay as they are. Needs model.quantization=rounded and ema_decay. A step takes about three times as
    long at effort 1."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up. constant: stays at the peak. cosine: falls to `final_factor` times the peak over
    the rest of the run."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly from 0 to its peak."""
    final_factor: float = 0.01
    """Final learning rate of the cosine schedule, as a fraction of the peak."""
    clip_norm: float = 1.0
    """Maximum global L2 norm of the gradient; larger ones are scaled down to it. 0 turns clipping off."""
    skip_norm: float = 0.0
    """Skip a step whose gradient has at least this global L2 norm, as if it were not finite; 0 skips only non-finite
    gradients. A single crop on which the transforms overshoot can undo an hour of training; about twenty times
    train/grad_norm is a good value."""
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
        require(0 <= self.search_effort <= 6, "optim.search_effort", self.search_effort, "must be from 0 to 6")
        require(
            not self.search_effort or (self.transforms_learn and self.ema_decay > 0),
            "optim.search_effort",
            self.search_effort,
            "g_s must learn, and the search uses averaged weights: set optim.ema_decay, and transform_factor above 0",
        )
        require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "must not be negative")
        require(0 <= self.final_factor <= 1, "optim.final_factor", self.final_factor, "must be from 0 to 1")
        require(0 <= self.clip_norm < math.inf, "optim.clip_norm", self.clip_norm, "must be finite and not negative")
        require(0 <= self.skip_norm < math.inf, "optim.skip_norm", self.skip_norm, "must be finite and not negative")
        require(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "must be from 0 to below 1")

    @property
    def transforms_learn(self) -> bool:
        """Whether training steps change g_s and usually g_a. If not, all gradients come from the rate, and no
        reconstruction is needed."""
        return self.transform_factor != 0
