"""The operations have the right values, and the gradients that replace their derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from jahp_pl.ops import add_uniform_noise, is_finite, lower_bound, round_straight_through


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_straight_through_values_are_those_of_round_to_the_last_bit(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(10000) * scale for scale in (0.1, 1.0, 30.0, 1e4)]).to(dtype)
    halves = torch.arange(-20, 21).to(dtype) / 2
    for values in (x, halves, torch.nextafter(halves, torch.full_like(halves, 9e9)), -halves):
        assert torch.equal(round_straight_through(values), torch.round(values))


def test_halves_round_to_even() -> None:
    assert round_straight_through(torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-2, 0, 0, 2, 2]


def test_straight_through_gradient_is_that_of_the_identity() -> None:
    x, upstream = torch.randn(100, requires_grad=True), torch.randn(100)
    round_straight_through(x).backward(upstream)
    assert x.grad is not None
    assert torch.equal(x.grad, upstream)


def test_noise_is_uniform_on_the_unit_bin_and_fresh_in_each_call() -> None:
    x = torch.full((200_000,), 3.0, dtype=torch.float64)
    first, second = add_uniform_noise(x) - x, add_uniform_noise(x) - x
    assert first.min() >= -0.5
    assert first.max() <= 0.5
    assert not torch.equal(first, second)
    # Moments of U(-1/2, 1/2), each within five standard errors of 200,000 samples.
    assert abs(first.mean()) < 5 * (1 / 12 / 2e5) ** 0.5
    assert abs(first.square().mean() - 1 / 12) < 5 * (1 / 180 / 2e5) ** 0.5
    assert abs((first * second).mean()) < 5 / 12 / 2e5**0.5


def test_noise_does_not_modify_its_input_and_passes_the_gradient() -> None:
    x = torch.randn(10, requires_grad=True)
    before = x.detach().clone()
    add_uniform_noise(x).sum().backward()
    assert torch.equal(x.detach(), before)
    assert torch.equal(x.grad, torch.ones(10))


@pytest.mark.parametrize(
    ("x", "upstream", "value", "gradient"),
    [
        (2.0, 1.0, 2.0, 1.0),  # above: the bound has no effect
        (2.0, -1.0, 2.0, -1.0),
        (1.0, 1.0, 1.0, 1.0),  # at the bound
        (1.0, -1.0, 1.0, -1.0),
        (0.5, 1.0, 1.0, 0.0),  # below, where a descent step would lower x further
        (0.5, -1.0, 1.0, -1.0),  # below, where a descent step raises x
        (-9.0, -3.0, 1.0, -3.0),
    ],
)
def test_lower_bound_passes_the_gradients_that_raise(x: float, upstream: float, value: float, gradient: float) -> None:
    tensor = torch.tensor(x, requires_grad=True)
    bounded = lower_bound(tensor, 1.0)
    bounded.backward(torch.tensor(upstream))
    assert bounded.item() == value
    assert tensor.grad is not None
    assert tensor.grad.item() == gradient


def test_a_value_below_the_bound_returns_by_gradient_descent() -> None:
    x = torch.tensor(-1.0, requires_grad=True)
    for _ in range(100):
        (gradient,) = torch.autograd.grad((lower_bound(x, 0.1) - 2.0).square(), x)
        x = (x - 0.1 * gradient).detach().requires_grad_()
    assert x.item() == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_found_anywhere(dtype: torch.dtype, value: float) -> None:
    values = torch.randn(7, 100).to(dtype)
    assert is_finite(values)
    for place in ((0, 0), (3, 50), (6, 99)):
        damaged = values.clone()
        damaged[place] = value
        assert not is_finite(damaged)
        assert not is_finite(damaged.T)


def test_nothing_and_integers_are_finite() -> None:
    assert is_finite(torch.empty(0))
    assert is_finite(torch.tensor([3, 4]))
