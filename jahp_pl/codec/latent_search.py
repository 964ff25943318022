"""Two searches for integers near y with a lower R + lambda * D than the nearest ones, both over continuous y:

- freeze: Adam; after a warm-up, a growing random share of the latents is rounded for good, while the others continue
  and compensate for the errors that this causes. A few steps suffice.
- sga: stochastic Gumbel annealing (Yang, Bamler & Mandt 2020): each step softly samples one of the two integers next to
  each latent, at a falling temperature. It takes hundreds of steps and then finds a little more.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from jahp_pl.ops import round_straight_through

FREEZING_POWER = 1.4
"""The frozen share is p^1.4, with p from 0 to 1 over the steps after the warm-up."""
SGA_TEMPERATURES = (0.5, 0.05)
"""Initial and final temperature; after `SGA_CONSTANT` of the steps, it falls geometrically from one to the other."""
SGA_CONSTANT = 0.35
"""Share of the steps during which the temperature stays at its initial value."""


class Search(NamedTuple):
    """Settings of a search for latents."""

    method: Literal["freeze", "sga", "straight_through"]
    """straight_through rounds the latents, with the gradient of the identity; it serves as a baseline."""
    steps: int
    """Forward and backward passes."""
    rate: float = 0.2
    """Initial learning rate of Adam."""
    final_rate: float = 0.06
    """Final learning rate of Adam; it falls geometrically."""
    betas: tuple[float, float] = (0.3, 0.8)
    """Betas of Adam. With more momentum, latents would keep moving after their error is compensated."""
    warm_up: float = 0.15
    """Share of the steps before anything is frozen; 1 rounds everything at the end."""
    structure_share: float = 0.3
    """Share of `StructuralDistortion` in the distortion of models that were trained for squared errors."""


class RefinementWarning(UserWarning):
    """Warns that a search found nothing because a gradient was not finite."""


def run_search(
    objective: Callable[[Tensor], Tensor],
    y: Tensor,
    keys: Tensor,
    search: Search,
    generator: torch.Generator,
    on_step: Callable[[int], None],
) -> Tensor | None:
    """Search for latents with a lower objective.

    Args:
        objective: differentiable function of latents (1, M, h, w).
        y: (1, M, h, w) latents to start from.
        keys: (1, M, h, w): latents with a negative key are kept; the others, uniform in [0, 1), freeze in the order of
            their keys.
        search: method and its settings.
        generator: random generator on the CPU.
        on_step: called after each step with the number of finished ones.

    Returns:
        (1, M, h, w) latents, to be rounded; None if a gradient is not finite.
    """
    is_free = keys >= 0
    adam = _Adam(y, search.betas)
    for step in range(search.steps):
        share = step / search.steps
        y = y.detach()
        if search.method == "freeze":
            is_frozen = is_free & (keys < _share_frozen(search, share))
            y, is_free = torch.where(is_frozen, y.round(), y), is_free & ~is_frozen
        y.requires_grad_(True)
        tried = torch.where(is_free, _relaxed(y, search, share, generator), y)
        (gradient,) = torch.autograd.grad(objective(tried), y)
        if not bool(torch.isfinite(gradient).all()):
            warnings.warn(
                "the gradients of the model are not finite, so its latents were only rounded; the weights may have "
                "diverged; use an earlier checkpoint",
                RefinementWarning,
                stacklevel=3,
            )
            return None
        rate = search.rate * (search.final_rate / search.rate) ** share
        y = torch.where(is_free, y.detach() - rate * adam.direction(gradient), y.detach())
        on_step(step + 1)
    return y


def _share_frozen(search: Search, share: float) -> float:
    """Return the share of latents that is frozen after a share of the steps."""
    done = max(0.0, share - search.warm_up) / max(1 - search.warm_up, 1e-9)
    return math.pow(done, FREEZING_POWER)


def _relaxed(y: Tensor, search: Search, share: float, generator: torch.Generator) -> Tensor:
    """Return the latents at which a step evaluates the objective, differentiable with respect to y."""
    if search.method == "sga":
        return _annealed(y, share, generator)
    return round_straight_through(y) if search.method == "straight_through" else y


class _Adam:
    """Moments of Adam (Kingma & Ba 2015) for one tensor."""

    def __init__(self, like: Tensor, betas: tuple[float, float]) -> None:
        self._betas, self._step = betas, 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the direction to subtract, of magnitude about 1 and of the gradient's shape."""
        self._step += 1
        first, second = self._betas
        # Moments m and v, then m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + eps)
        self._mean.lerp_(gradient, 1 - first)
        self._square.lerp_(gradient.square(), 1 - second)
        variance = self._square / (1 - second**self._step)
        return self._mean / (1 - first**self._step) / (variance.sqrt_() + 1e-8)


def _annealed(y: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Softly sample one of the two integers next to each latent, differentiable with respect to y (SGA).

    Args:
        y: latents.
        share: share of the steps that are done.
        generator: random generator on the CPU.
    """
    start, end = SGA_TEMPERATURES
    temperature = start * (end / start) ** max(0.0, (share - SGA_CONSTANT) / (1 - SGA_CONSTANT))
    floor = y.detach().floor()
    fraction = (y - floor).clamp(1e-5, 1 - 1e-5)
    # A candidate r has the logit -atanh(|y - r|) / temperature, hence these log-odds of the ceiling. The difference of
    # two Gumbel variables, the noise, is logistic.
    log_odds = (torch.atanh(fraction) - torch.atanh(1 - fraction)) / temperature
    uniform = torch.rand(y.shape, generator=generator, dtype=torch.float32).clamp_(1e-7, 1 - 1e-7).to(y.device)
    return floor + torch.sigmoid((log_odds + torch.logit(uniform)) / temperature)
