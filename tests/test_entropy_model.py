"""Bits of the factorized and of the conditional density against direct double-precision and mpmath evaluation."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from jahp_pl.config import DensityName, EntropyModelName, ModelConfig
from jahp_pl.density_layout import BOUNDS
from jahp_pl.distributions import log_mass
from jahp_pl.entropy_model import (
    LOG_LIKELIHOOD_MIN,
    ConditionalDensity,
    EntropyParameters,
    FactorizedDensity,
)

MOST_BITS = -LOG_LIKELIHOOD_MIN / math.log(2)

FloatArray = npt.NDArray[np.float64]


def trained(num_channels: int) -> FactorizedDensity:
    """Create a density with every parameter away from its initial value."""
    prior = FactorizedDensity(num_channels)
    with torch.no_grad():
        for parameters in (prior.matrices, prior.biases, prior.factors):
            for parameter in parameters:
                parameter += torch.randn_like(parameter) * 0.5
    return prior


def loop_logit(prior: FactorizedDensity, channel: int, x: float) -> float:
    """Compute logit F(x) of one channel by the equations of Balle et al. 2018, appendix 6.1, in double precision."""
    v: FloatArray = np.array([[x]])
    for k, (matrix, bias) in enumerate(zip(prior.matrices, prior.biases, strict=True)):
        H, b = (p.detach()[channel].double().numpy() for p in (matrix, bias))
        v = np.log1p(np.exp(H)) @ v + b
        if k < len(prior.factors):
            a = prior.factors[k].detach()[channel].double().numpy()
            v = v + np.tanh(a) * np.tanh(v)
    return float(v[0, 0])


@pytest.fixture(params=["initial", "trained"])
def prior(request: pytest.FixtureRequest) -> FactorizedDensity:
    return FactorizedDensity(5) if request.param == "initial" else trained(5)


def test_bits_are_those_of_the_difference_of_sigmoids(prior: FactorizedDensity) -> None:
    z = torch.tensor([0.0, 0.4, -0.7, 1.0, 3.0, -8.0, 15.0, -40.0, 120.0, 600.0, -2000.0])
    bits = prior.bits(z.view(1, 1, 1, -1).expand(1, 5, 1, -1)).detach()
    for channel in range(5):
        for k, value in enumerate(z.tolist()):
            logits = [loop_logit(prior, channel, value + half) for half in (0.5, -0.5)]
            with mpmath.workdps(1500):  # enough for sigmoids that differ from 1 by e^-2000
                upper, lower = (1 / (1 + mpmath.exp(-mpmath.mpf(logit))) for logit in logits)
                expected = min(float(-mpmath.log(upper - lower, 2)), MOST_BITS)
            assert bits[0, channel, 0, k].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_cumulative_rises_strictly_from_zero_to_one(prior: FactorizedDensity) -> None:
    x = torch.linspace(-3000, 3000, 60001, dtype=torch.float64).expand(5, 1, -1)
    logits = prior.cumulative_logits(x)
    assert logits.dtype == torch.float64
    assert (logits.diff() > 0).all()
    assert (logits[..., 0] < -20).all()
    assert (logits[..., -1] > 20).all()


def test_masses_over_the_integers_sum_to_one(prior: FactorizedDensity) -> None:
    z = torch.arange(-3000.0, 3001.0)
    for shift in (0.0, 0.3):
        bits = prior.bits((z + shift).view(1, 1, 1, -1).expand(1, 5, 1, -1))
        # Values at the floor are left out, because thousands of them with almost no mass each would add up.
        masses = torch.where(bits.double() < MOST_BITS - 1e-4, torch.exp2(-bits.double()), 0.0)
        torch.testing.assert_close(masses.sum(-1).flatten(), torch.ones(5).double(), rtol=0, atol=2e-5)


def test_the_initial_density_is_about_as_wide_as_asked() -> None:
    x = torch.linspace(-200, 200, 4001, dtype=torch.float64)
    for scale in (1.0, 10.0):
        prior = FactorizedDensity(3, init_scale=scale)
        cumulative = torch.sigmoid(prior.cumulative_logits(x.expand(3, 1, -1)))[:, 0]
        # With a logistic density of this scale, half of the mass lies within scale * log 3 of the median.
        within = [(c > 0.25).logical_and(c < 0.75).sum().item() * 0.1 for c in cumulative]
        assert within == pytest.approx([2 * scale * math.log(3)] * 3, abs=0.11)


@pytest.mark.parametrize("magnitude", [1.0, 100.0, 1e4])
def test_bits_and_gradients_are_finite_for_values_up_to_ten_thousand(
    prior: FactorizedDensity, magnitude: float
) -> None:
    z = (torch.tensor([-1.0, -0.3, 0.0, 0.3, 1.0]) * magnitude).view(1, 1, 1, 5).repeat(2, 5, 1, 1).requires_grad_()
    bits = prior.bits(z)
    bits.sum().backward()
    assert bits.isfinite().all()
    assert (bits >= 0).all()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prior.parameters())


def test_the_gradient_points_back_to_the_mass_from_far_away(prior: FactorizedDensity) -> None:
    z = torch.tensor([-1e4, -500.0, 500.0, 1e4]).view(1, 1, 1, 4).repeat(1, 5, 1, 1).requires_grad_()
    prior.bits(z).sum().backward()
    assert z.grad is not None
    assert (z.grad[..., :2] < 0).all()
    assert (z.grad[..., 2:] > 0).all()


def test_bits_are_per_channel_and_elementwise(prior: FactorizedDensity) -> None:
    z = torch.randn(3, 5, 4, 6) * 10
    bits = prior.bits(z)
    assert bits.shape == z.shape
    for batch, channel, row, column in ((0, 0, 0, 0), (2, 4, 3, 5), (1, 3, 2, 0)):
        alone = torch.zeros(1, 5, 1, 1)
        alone[0, channel] = z[batch, channel, row, column]
        torch.testing.assert_close(bits[batch, channel, row, column], prior.bits(alone)[0, channel, 0, 0])


def test_factorized_bits_under_autocast_are_those_without(prior: FactorizedDensity) -> None:
    z = torch.randn(2, 5, 3, 3) * 20
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bits = prior.bits(z)
    assert bits.dtype == torch.float32
    assert torch.equal(bits, prior.bits(z))


def test_fitting_finds_the_entropy_of_a_known_source() -> None:
    weights = torch.tensor([0.05, 0.2, 0.5, 0.2, 0.05])
    entropy = -(weights * weights.log2()).sum().item()
    prior = FactorizedDensity(1, init_scale=1.0)
    values = torch.arange(5.0).view(1, 1, 1, 5) - 2
    for _ in range(150):
        prior.zero_grad()
        rate = (prior.bits(values) * weights).sum()
        rate.backward()
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter -= 0.2 * parameter.grad
    # The rate is never below the entropy, and close to it.
    assert entropy - 1e-4 <= rate.item() <= entropy + 0.05


def config(entropy_model: EntropyModelName = "joint", num_components: int = 1) -> ModelConfig:
    return ModelConfig(entropy_model=entropy_model, num_components=num_components)


@pytest.mark.parametrize("entropy_model", ["scale_hyperprior", "mean_scale_hyperprior", "context", "joint"])
@pytest.mark.parametrize("num_components", [1, 3])
def test_raw_outputs_are_blocks_of_scales_means_and_logits(
    entropy_model: EntropyModelName, num_components: int
) -> None:
    density, K, M = ConditionalDensity(config(entropy_model, num_components)), num_components, 2
    has_means = entropy_model != "scale_hyperprior"
    assert density.num_blocks == 1 + has_means + (K > 1)
    raw = torch.randn(3, density.num_blocks * K * M, 4, 5)
    parameters = density.parameters(raw)
    for k in range(K):
        for m in range(M):
            channel = k * M + m
            assert torch.equal(parameters.sigma[:, k, m], raw[:, channel].clamp(min=BOUNDS["gaussian"].scale_min))
            expected = raw[:, K * M + channel] if has_means else torch.zeros(3, 4, 5)
            assert torch.equal(parameters.mu[:, k, m], expected)
    if K > 1:
        logits = raw[:, -K * M :].view(3, K, M, 4, 5)
        torch.testing.assert_close(parameters.log_weights.exp(), torch.softmax(logits, 1))
    else:
        assert torch.equal(parameters.log_weights, torch.zeros(3, 1, M, 4, 5))


def test_a_mean_and_scale_order_of_one_component_is_scales_then_means() -> None:
    raw = torch.tensor([2.0, 3.0, -5.0, 7.0]).view(1, 4, 1, 1)
    parameters = ConditionalDensity(config()).parameters(raw)
    assert parameters.sigma.flatten().tolist() == [2.0, 3.0]
    assert parameters.mu.flatten().tolist() == [-5.0, 7.0]


@pytest.mark.parametrize("num_components", [1, 3])
def test_parameters_and_bits_are_float32_also_from_bfloat16_networks(num_components: int) -> None:
    density = ConditionalDensity(config(num_components=num_components))
    raw = torch.randn(1, density.num_blocks * num_components * 2, 3, 3, dtype=torch.bfloat16)
    y = torch.randn(1, 2, 3, 3) * 5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parameters = density.parameters(raw)
        bits = density.bits(y, parameters)
    assert {t.dtype for t in (*parameters, bits)} == {torch.float32}
    assert torch.equal(bits, density.bits(y, density.parameters(raw)))


@pytest.mark.parametrize("family", ["gaussian", "laplace", "logistic"])
def test_conditional_bits_are_logarithms_to_base_two(family: str) -> None:
    density = ConditionalDensity(ModelConfig(likelihood=family))
    y, mu, sigma = torch.randn(2, 3, 4, 4) * 5, torch.randn(2, 1, 3, 4, 4), torch.rand(2, 1, 3, 4, 4) + 0.5
    bits = density.bits(y, EntropyParameters(mu, sigma, torch.zeros_like(mu)))
    expected = -log_mass(family, y.double(), mu[:, 0].double(), sigma[:, 0].double()) / math.log(2)
    torch.testing.assert_close(bits.double(), expected.clamp(max=MOST_BITS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gaussian", "laplace", "logistic"])
def test_an_outlier_costs_a_bounded_number_of_bits_and_still_pulls_on_its_parameters(family: DensityName) -> None:
    mu, sigma = torch.zeros(1, 1, 1, 1, 1, requires_grad=True), torch.full((1, 1, 1, 1, 1), 0.5, requires_grad=True)
    y = torch.full((1, 1, 1, 1), 300.0)
    bits = ConditionalDensity(ModelConfig(likelihood=family)).bits(
        y, EntropyParameters(mu, sigma, torch.zeros_like(sigma))
    )
    assert bits.item() == pytest.approx(MOST_BITS)
    bits.sum().backward()
    assert mu.grad is not None
    assert sigma.grad is not None
    assert mu.grad.item() < 0  # a step down in rate moves the mean up, toward y
    assert sigma.grad.item() < 0


def test_a_latent_right_on_a_confident_mean_costs_next_to_nothing() -> None:
    y = torch.randint(-50, 50, (1, 4, 3, 3)).float()
    raw = torch.cat([torch.full_like(y, -3.0), y], dim=1)  # sigma at its bound
    density = ConditionalDensity(config())
    assert density.bits(y, density.parameters(raw)).max() < 1e-4


@pytest.mark.parametrize("num_components", [1, 3])
def test_the_gradient_reaches_a_scale_below_its_bound_if_it_should_rise(num_components: int) -> None:
    density, K = ConditionalDensity(config(num_components=num_components)), num_components
    raw = torch.full((1, density.num_blocks * K, 1, 2), -1.0, requires_grad=True)
    y = torch.tensor([4.0, -1.0]).view(1, 1, 1, 2)  # off the mean, and on it
    density.bits(y, density.parameters(raw)).sum().backward()
    gradient: Tensor = raw.grad[0, :K, 0]
    assert (gradient[:, 0] < 0).all()
    assert (gradient[:, 1] == 0).all()


@pytest.mark.parametrize("family", ["gaussian", "laplace", "logistic"])
def test_the_smallest_scale_leaves_as_little_outside_of_a_bin_for_every_family(family: DensityName) -> None:
    zero, sigma = torch.zeros(1).double(), torch.tensor([BOUNDS[family].scale_min]).double()
    outside = -torch.expm1(log_mass(family, zero, zero, sigma))
    assert 4e-6 < float(outside) < 7e-6
