"""Densities of one latent, convolved with U(-1/2, 1/2): Gaussian, Laplace, logistic, and mixtures of them.

The probability of the integer y under a location-scale density with cumulative F is the mass of a unit bin,

    P(y) = F((y + 1/2 - mu) / sigma) - F((y - 1/2 - mu) / sigma),

and the same function of a real y is the density of the noisy latent (Balle et al. 2018, equation 6). Far from mu both
terms round to the same number, so everything here works in log space. All three families are symmetric: with
v = |y - mu|,

    P(y) = F(a) - F(b),   a = (1/2 - v) / sigma,   b = (-1/2 - v) / sigma,

where b < a lie in the lower tail, in which log F is accurate. In the per-family forms below, values and gradients are
finite for v up to 1e4 and sigma from 0.05 to 1e3 in float32. They are accurate to max(1, sigma) times 32 machine
epsilons for the Gaussian and 4 for the others: digits are lost only if a bin is narrow compared to sigma.

Shapes broadcast. mu and sigma have the units of y; results are in nats (natural log), <= 0 up to these rounding errors.

The rest of the code knows a family only through its entry in `DENSITIES`; `register_density` adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from jahp_pl.config import DensityName, add_part, find_part
from jahp_pl.density_layout import BOUNDS


class Density(NamedTuple):
    """A family of symmetric densities, parametrized by location and scale."""

    log_mass: Callable[[Tensor, Tensor], Tensor]
    """log P as a function of v = |y - mu| and sigma; used in training and evaluation."""
    cumulative: Callable[[Tensor], Tensor]
    """F(t) for location 0 and scale 1, in float64; called only to compute the tables of a codec."""
    scale_min: float
    """Smallest sigma. At this scale a unit bin around the mean holds all but 5.5e-6 of the mass in every family. With
    the Gaussian's 0.11, a Laplace density would leave at least 1 % outside, a floor of 0.015 bits per latent."""
    reach: float
    """Half-width in scales of the codec's coding window: about 2^-16 of the mass lies beyond, where escapes cost no
    more than entries of the window would."""
    extent: float
    """Half-width in scales of the codec's table of F: less than 2^-25 of the mass lies beyond."""


def log_mass(family: DensityName, y: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """Compute log P(y) of the unit bin centered on y.

    Args:
        family: density before the convolution.
        y: values; at integers, the result is the exact probability of the integer.
        mu: location, in units of y.
        sigma: scale > 0: standard deviation of the Gaussian, b of the Laplace, s of the logistic density.
    """
    return density_of(family).log_mass((y - mu).abs(), sigma)  # log(F(a) - F(b)) at v = |y - mu|


def mixture_log_mass(family: DensityName, y: Tensor, mu: Tensor, sigma: Tensor, log_weights: Tensor) -> Tensor:
    """Compute log sum_k w_k P_k(y) for K components along dimension 1.

    Args:
        family: density of every component.
        y: (B, M, h, w).
        mu: (B, K, M, h, w).
        sigma: (B, K, M, h, w), > 0.
        log_weights: (B, K, M, h, w), log w_k, normalized over K. With K = 1 the result is bit-identical to
            `log_mass`.

    Returns:
        (B, M, h, w).
    """
    per_component = log_mass(family, y.unsqueeze(1), mu, sigma) + log_weights  # (B, K, M, h, w)
    if per_component.shape[1] == 1:
        return per_component.squeeze(1)
    return torch.logsumexp(per_component, dim=1)


def _gaussian(v: Tensor, sigma: Tensor) -> Tensor:
    # Phi(t) = exp(-t^2 / 2) erfcx(-t / sqrt 2) / 2, hence
    # Phi(b) / Phi(a) = erfcx(..b) / erfcx(..a) exp(-(b^2 - a^2) / 2), and (b^2 - a^2) / 2 = v / sigma^2 without
    # cancellation. erfcx(t) = exp(t^2) erfc(t) neither under- nor overflows here: its argument is never below
    # -0.5 / (0.05 sqrt 2) = -7.1.
    a = (0.5 - v) / sigma
    erfcx_a = torch.special.erfcx(a * -math.sqrt(0.5))
    erfcx_b = torch.special.erfcx((v + 0.5) / sigma * math.sqrt(0.5))
    ratio = erfcx_b / erfcx_a * torch.exp(-v / sigma.square())
    return torch.log(0.5 * erfcx_a) - 0.5 * a.square() + torch.log1p(-ratio)


def _laplace(v: Tensor, sigma: Tensor) -> Tensor:
    # F(t) = exp(t) / 2 below 0. A bin beside the peak has P = exp(a) (1 - exp(-1 / sigma)) / 2, the bin that contains
    # the peak P = -(expm1(-a) + expm1(b)) / 2. Each branch only sees arguments at which it is finite, so that the
    # branch not taken contributes no NaN to the gradient.
    a = (0.5 - v) / sigma
    tail = a.clamp(max=0.0) - math.log(2.0) + torch.log(-torch.expm1(-1.0 / sigma))
    near = v.clamp(max=0.5)
    mass = -0.5 * (torch.expm1((near - 0.5) / sigma) + torch.expm1((-near - 0.5) / sigma))
    return torch.where(v > 0.5, tail, torch.log(mass))


def _logistic(v: Tensor, sigma: Tensor) -> Tensor:
    # With s(t) = 1 / (1 + exp(-t)): s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), and b - a = -1 / sigma.
    log_sigmoid = torch.nn.functional.logsigmoid
    return log_sigmoid((0.5 - v) / sigma) + log_sigmoid((0.5 + v) / sigma) + torch.log(-torch.expm1(-1.0 / sigma))


def _gaussian_cumulative(t: Tensor) -> Tensor:
    gaussian: Tensor = torch.special.ndtr(t)
    return gaussian


def _laplace_cumulative(t: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.sign(t) * -torch.expm1(-t.abs())  # 1/2 + sign(t) (1 - exp(-|t|)) / 2


DENSITIES: dict[DensityName, Density] = {
    "gaussian": Density(_gaussian, _gaussian_cumulative, *BOUNDS["gaussian"]),
    "laplace": Density(_laplace, _laplace_cumulative, *BOUNDS["laplace"]),
    "logistic": Density(_logistic, torch.sigmoid, *BOUNDS["logistic"]),
}
"""Use `density_of` to look one up."""


def register_density(name: DensityName, density: Density) -> None:
    """Add a family of densities, to be selected by `model.likelihood=NAME`; it replaces an earlier one of that name.

    Args:
        name: a new name, a Python identifier.
        density: the family.

    Raises:
        ConfigError: if the name is one of the package's own, or not an identifier.
    """
    add_part("likelihood", name)
    DENSITIES[name] = density


def density_of(name: DensityName) -> Density:
    """Return the family registered under a name.

    Raises:
        ConfigError: if it is not registered in this process.
    """
    return find_part("likelihood", name, DENSITIES)
