"""Unit-bin masses and their gradients against mpmath with 60 digits, and properties of any density."""

from __future__ import annotations

import itertools

import mpmath
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from jahp_pl.config import BUILT_IN, DensityName
from jahp_pl.distributions import DENSITIES, log_mass, mixture_log_mass

FAMILIES = BUILT_IN["likelihood"]
SIGMAS = (0.11, 0.2, 0.5, 1.0, 2.0, 7.5, 30.0, 100.0, 256.0)
DISTANCES = (0.0, 1e-3, 0.25, 0.49, 0.5, 0.51, 0.75, 1.0, 1.5, 2.0, 3.3, 10.0, 31.0, 100.0, 1e3, 1e4)


def cumulative(family: DensityName, t: mpf) -> mpf:
    """Compute F(t) of the standard density for t of either sign."""
    if family == "gaussian":
        return mpmath.erfc(-t / mpmath.sqrt(2)) / 2
    if family == "laplace":
        return mpmath.exp(t) / 2 if t < 0 else 1 - mpmath.exp(-t) / 2
    return 1 / (1 + mpmath.exp(-t))


def density(family: DensityName, t: mpf) -> mpf:
    """Compute F'(t)."""
    if family == "gaussian":
        return mpmath.exp(-t * t / 2) / mpmath.sqrt(2 * mpmath.pi)
    if family == "laplace":
        return mpmath.exp(-abs(t)) / 2
    return mpmath.exp(-abs(t)) / (1 + mpmath.exp(-abs(t))) ** 2


def exact(family: DensityName, distance: float, sigma: float) -> tuple[float, float, float]:
    """Compute log P at y = mu - distance, and its derivatives with respect to mu and sigma."""
    with mpmath.workdps(60):
        v, s = mpf(distance), mpf(sigma)
        upper, lower = (mpf(1) / 2 - v) / s, (-mpf(1) / 2 - v) / s
        mass = cumulative(family, upper) - cumulative(family, lower)
        at_upper, at_lower = density(family, upper), density(family, lower)
        by_mu = -(at_upper - at_lower) / s / mass
        by_sigma = -(upper * at_upper - lower * at_lower) / s / mass
        return float(mpmath.log(mass)), float(by_mu), float(by_sigma)


def evaluate(family: DensityName, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rows (distance, sigma) of the grid, and log P with both gradients at y = mu - distance."""
    grid = torch.tensor(list(itertools.product(DISTANCES, SIGMAS)), dtype=dtype)
    mu = torch.zeros(len(grid), dtype=dtype, requires_grad=True)
    sigma = grid[:, 1].clone().requires_grad_()
    value = log_mass(family, -grid[:, 0], mu, sigma)
    value.sum().backward()
    assert mu.grad is not None
    assert sigma.grad is not None
    return grid, value.detach(), mu.grad, sigma.grad


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_accurate_from_the_peak_to_the_far_tails(
    family: DensityName, dtype: torch.dtype
) -> None:
    precision = (32 if family == "gaussian" else 4) * torch.finfo(dtype).eps
    grid, value, by_mu, by_sigma = evaluate(family, dtype)
    for row, *computed in zip(grid.tolist(), value.tolist(), by_mu.tolist(), by_sigma.tolist(), strict=True):
        sigma, expected = row[1], exact(family, *row)
        # Errors are relative to 1 / sigma: such a gradient changes log P by one if mu or sigma changes by sigma.
        scales = (max(1.0, abs(expected[0])), *(max(1 / sigma, abs(g)) for g in expected[1:]))
        # Bins that are narrow relative to sigma cost digits in proportion.
        bound = precision * max(1.0, sigma)
        for got, want, scale in zip(computed, expected, scales, strict=True):
            assert got == pytest.approx(want, rel=0, abs=bound * scale), row


@pytest.mark.parametrize("family", FAMILIES)
def test_masses_over_the_integers_sum_to_one(family: DensityName) -> None:
    for sigma, mu in itertools.product(SIGMAS, (0.0, 0.3, -0.5, 17.77)):
        reach = int(40 * sigma) + 20
        y = torch.arange(-reach, reach + 1)
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
            mass = log_mass(family, y.to(dtype), torch.tensor(mu, dtype=dtype), torch.tensor(sigma, dtype=dtype)).exp()
            assert mass.double().sum().item() == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_masses_are_symmetric_about_mu_and_depend_on_the_distance_alone(family: DensityName) -> None:
    distance, sigma = torch.rand(1000) * 50, torch.rand(1000) * 20 + 0.11
    mu = torch.randint(-64, 64, (1000,)).float()
    distance = torch.round(distance * 1024) / 1024  # mu +- distance is then exact in single precision
    right, left = log_mass(family, mu + distance, mu, sigma), log_mass(family, mu - distance, mu, sigma)
    assert torch.equal(right, left)
    assert torch.equal(right, log_mass(family, distance, torch.zeros(1000), sigma))


@pytest.mark.parametrize("family", FAMILIES)
def test_mass_falls_with_the_distance_from_mu(family: DensityName) -> None:
    distance = torch.linspace(0, 1e4, 20001, dtype=torch.float64)
    for sigma in SIGMAS:
        values = log_mass(family, distance, torch.zeros(()), torch.tensor(sigma, dtype=torch.float64))
        assert (values.diff() < 1e-12).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_everywhere_a_training_step_may_land(family: DensityName) -> None:
    y = (torch.rand(20000) * 2 - 1) * 10 ** (torch.rand(20000) * 7 - 3)
    sigma = (10 ** (torch.rand(20000) * 4.3 - 1.3)).clamp(0.05, 1e3).requires_grad_()
    mu = torch.zeros(20000, requires_grad=True)
    y.requires_grad_()
    value = log_mass(family, y, mu, sigma)
    value.sum().backward()
    assert value.isfinite().all()
    for tensor in (y, mu, sigma):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert torch.equal(y.grad, -mu.grad)


def components(num: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Create y and mixture parameters as (B, K, M, h, w)."""
    shape = (2, num, 3, 4, 5)
    y = torch.randn(2, 3, 4, 5, dtype=dtype) * 10
    mu, sigma = torch.randn(shape, dtype=dtype) * 8, torch.rand(shape, dtype=dtype) * 5 + 0.11
    return y, mu, sigma, torch.log_softmax(torch.randn(shape, dtype=dtype), dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_component_equals_the_plain_family_to_the_last_bit(family: DensityName) -> None:
    y, mu, sigma, log_weights = components(1)
    expected = log_mass(family, y, mu[:, 0], sigma[:, 0])
    assert torch.equal(mixture_log_mass(family, y, mu, sigma, log_weights), expected)
    assert torch.equal(mixture_log_mass(family, y, mu, sigma, torch.zeros_like(mu)), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_components_equal_one_whatever_their_weights(family: DensityName) -> None:
    y, mu, sigma, log_weights = components(3)
    mu, sigma = mu[:, :1].expand_as(log_weights), sigma[:, :1].expand_as(log_weights)
    mixture, single = mixture_log_mass(family, y, mu, sigma, log_weights), log_mass(family, y, mu[:, 0], sigma[:, 0])
    torch.testing.assert_close(mixture, single, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_is_the_weighted_sum_of_its_components(family: DensityName) -> None:
    y, mu, sigma, log_weights = components(3, torch.float64)
    expected = sum(log_weights[:, k].exp() * log_mass(family, y, mu[:, k], sigma[:, k]).exp() for k in range(3))
    torch.testing.assert_close(mixture_log_mass(family, y, mu, sigma, log_weights).exp(), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_mixtures_have_finite_gradients_in_the_far_tails(family: DensityName) -> None:
    y = torch.tensor([0.0, 1.0, -30.0, 1e3, -1e4, 1e4]).view(1, 1, 1, 6)
    mu = torch.zeros(1, 3, 1, 1, 6, requires_grad=True)
    sigma = torch.tensor([0.11, 0.11, 256.0]).view(1, 3, 1, 1, 1).repeat(1, 1, 1, 1, 6).requires_grad_()
    for logits in ([0.0, 0.0, 0.0], [50.0, 0.0, -50.0], [0.0, 1e4, -1e4]):
        raw = torch.tensor(logits).view(1, 3, 1, 1, 1).repeat(1, 1, 1, 1, 6).requires_grad_()
        value = mixture_log_mass(family, y, mu, sigma, torch.log_softmax(raw, dim=1))
        gradients = torch.autograd.grad(value.sum(), (mu, sigma, raw))
        assert value.isfinite().all()
        assert (value <= 1e-6).all()
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixtures_gradient_shares_the_plain_ones_by_responsibility(family: DensityName) -> None:
    y, mu, sigma, log_weights = components(2, torch.float64)
    mu.requires_grad_()
    mixture_log_mass(family, y, mu, sigma, log_weights).sum().backward()
    alone = mu.detach().clone().requires_grad_()
    each = log_mass(family, y.unsqueeze(1), alone, sigma)
    each.sum().backward()
    responsibility = torch.softmax(each.detach() + log_weights, dim=1)
    torch.testing.assert_close(mu.grad, responsibility * alone.grad, rtol=1e-9, atol=1e-12)


def test_every_family_of_the_configuration_has_its_density_and_no_other_does() -> None:
    assert tuple(DENSITIES) == FAMILIES
