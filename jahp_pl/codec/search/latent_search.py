"""Searches for integers near y with a lower R + lambda * D than the nearest ones.

Both methods vary a continuous y:

- freeze: Adam moves the latents while more and more of them are rounded for good, in random order, but those near an
  integer tend to come first. The others keep moving and compensate for the errors that this causes. A few steps
  suffice.
- sga: stochastic Gumbel annealing (Yang, Bamler & Mandt 2020): each step softly samples one of the two integers next
  to each latent, at a falling temperature. It takes hundreds of steps and then finds a little more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from jahp_pl.codec.bitstream import LATENT_MAX, LATENT_MIN
from jahp_pl.codec.search.latent_objective import SearchLoss
from jahp_pl.config import LossConfig
from jahp_pl.ops import round_straight_through

SGA_TEMPERATURES = (0.5, 0.05)
"""Initial and final temperature; after `SGA_CONSTANT` of the steps, it falls geometrically from one to the other."""
SGA_CONSTANT = 0.35
"""Share of the steps during which the temperature stays at its initial value."""


class Search(NamedTuple):
    """Settings of a search for latents."""

    method: Literal["freeze", "sga", "straight_through"]
    """See the module's docstring; straight_through, a baseline, rounds with the gradient of the identity."""
    steps: int
    """Number of steps, each with one forward and one backward pass."""
    learning_rate: float = 0.2
    """Initial learning rate of Adam."""
    final_learning_rate: float = 0.1
    """Final learning rate of Adam; it falls geometrically."""
    betas: tuple[float, float] = (0.1, 0.7)
    """Betas of Adam. With more momentum, latents would keep moving after their error is compensated."""
    channel_share: float = 0.5
    """Share of the channel's mean in the second moment of each latent. In a short search, Adam would use little more
    than the sign of each gradient; with the mean, latents with larger gradients move further."""
    nearness: float = 0.8
    """Weight of a latent's distance from the nearest integer in the order of freezing, relative to the largest possible
    distance, 1/2; with 0, the order is random."""
    warm_up: float = 0.0
    """Share of the steps before anything is frozen; 1 rounds everything at the end."""
    lmbda_factor: float = 1.3
    """Factor by which the model's lambda is multiplied, see docs/refinement.md."""
    structure_share: float = 0.3
    """Share of `StructuralDistortion` in the distortion of models that were trained for squared errors."""

    def loss_of(self, loss: LossConfig) -> SearchLoss:
        """Derive the loss of the search from the single-rate objective that the model was trained with."""
        return SearchLoss(loss.distortion, self.lmbda_factor * loss.lmbda, self.structure_share)


class RefinementWarning(UserWarning):
    """Warning that a search found nothing because a gradient was not finite."""


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
        keys: (1, M, h, w): latents with a negative key keep their values; the other keys, uniform in [0, 1), make the
            order of freezing random.
        search: method and its settings.
        generator: random generator on the CPU.
        on_step: called after each step with the number of finished steps.

    Returns:
        (1, M, h, w) latents to be rounded to the nearest integers, which a file can hold: those that were frozen are
        integers already. None if a gradient is not finite.
    """
    is_free = keys >= 0
    adam = _Adam(y, search.betas, search.channel_share)
    for step in range(search.steps):
        progress = step / search.steps
        y = y.detach()
        if search.method == "freeze":
            is_frozen = is_free & _choose_frozen(y, keys, is_free, search.nearness, _share_frozen(search, step))
            y, is_free = torch.where(is_frozen, y.round(), y), is_free & ~is_frozen
        y.requires_grad_(True)
        tried = torch.where(is_free, _relaxed(y, search, progress, generator), y)
        (gradient,) = torch.autograd.grad(objective(tried), y)
        if not bool(torch.isfinite(gradient).all()):
            warnings.warn(
                "the gradients of the model are not finite, so its latents were only rounded; the weights may have "
                "diverged; use an earlier checkpoint",
                RefinementWarning,
                stacklevel=3,
            )
            return None
        learning_rate = search.learning_rate * (search.final_learning_rate / search.learning_rate) ** progress
        y = torch.where(is_free, y.detach() - learning_rate * adam.direction(gradient), y.detach())
        on_step(step + 1)
    return y.clamp(LATENT_MIN, LATENT_MAX)


def _share_frozen(search: Search, step: int) -> float:
    """Return the share of latents that is frozen before a step.

    After the warm-up, every step freezes equally many. The rest, which is rounded after the last step, is half as
    large, because nothing compensates for its errors.
    """
    start = search.warm_up * search.steps
    return max(0.0, step - start) / max(search.steps - start - 0.5, 0.5)


def _choose_frozen(y: Tensor, keys: Tensor, is_free: Tensor, nearness: float, share_frozen: float) -> Tensor:
    """Choose the latents that are frozen once their share is `share_frozen`, including those frozen before.

    Args:
        y: latents.
        keys: see `run_search`.
        is_free: latents that are not frozen yet.
        nearness: see `Search`.
        share_frozen: share of frozen ones among the latents with a key of 0 or more, from 0 to 1.
    """
    num_kept = int((keys < 0).sum())
    number = num_kept + int(share_frozen * (keys.numel() - num_kept))
    if number == 0:
        return torch.zeros_like(is_free)
    order = torch.where(is_free, keys + nearness * 2 * (y - y.round()).abs(), -1.0)
    return order <= order.flatten().kthvalue(number).values


def _relaxed(y: Tensor, search: Search, progress: float, generator: torch.Generator) -> Tensor:
    """Return the latents at which a step evaluates the objective, differentiable with respect to y."""
    if search.method == "sga":
        return _annealed(y, progress, generator)
    return round_straight_through(y) if search.method == "straight_through" else y


class _Adam:
    """Moments of Adam (Kingma & Ba 2015) for one tensor (B, M, h, w).

    Args:
        like: tensor of the same shape.
        betas: decay of the two moments.
        channel_share: see `Search`.
    """

    def __init__(self, like: Tensor, betas: tuple[float, float], channel_share: float) -> None:
        self._betas, self._channel_share, self._step = betas, channel_share, 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the direction to subtract, of magnitude about 1 and of the gradient's shape."""
        self._step += 1
        first, second = self._betas
        # Moments m and v, then m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + eps)
        self._mean.lerp_(gradient, 1 - first)
        self._square.lerp_(gradient.square(), 1 - second)
        variance = self._square / (1 - second**self._step)
        if self._channel_share:
            variance.lerp_(variance.mean((2, 3), keepdim=True), self._channel_share)
        return self._mean / (1 - first**self._step) / (variance.sqrt_() + 1e-8)


def _annealed(y: Tensor, progress: float, generator: torch.Generator) -> Tensor:
    """Softly sample one of the two integers next to each latent, differentiable with respect to y (SGA).

    Args:
        y: latents.
        progress: share of the steps that are done, from 0 to 1.
        generator: random generator on the CPU.
    """
    start, end = SGA_TEMPERATURES
    temperature = start * (end / start) ** max(0.0, (progress - SGA_CONSTANT) / (1 - SGA_CONSTANT))
    floor = y.detach().floor()
    fraction = (y - floor).clamp(1e-5, 1 - 1e-5)
    # A candidate r has the logit -atanh(|y - r|) / temperature, hence these log-odds of the ceiling. The difference of
    # two Gumbel variables, the noise, is logistic.
    log_odds = (torch.atanh(fraction) - torch.atanh(1 - fraction)) / temperature
    uniform = torch.rand(y.shape, generator=generator, dtype=torch.float32).clamp_(1e-7, 1 - 1e-7).to(y.device)
    return floor + torch.sigmoid((log_odds + torch.logit(uniform)) / temperature)
