"""SOAP: Adam's steps in an eigenbasis that follows the gradients."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from jahp_pl.training.soap import FIRST_STEPS, Soap, uses_eigenbasis

pytestmark = pytest.mark.usefixtures("one_thread")


class CorrelatedTarget:
    """A kernel to be found by its outputs on inputs whose channels and taps are correlated, as a photograph's are."""

    def __init__(self, num_out: int, num_in: int, size: int) -> None:
        noise = torch.Generator().manual_seed(1)
        length = num_in * size**2
        self.target = torch.randn(num_out, length, generator=noise)
        spread = torch.logspace(0, -1.5, length)
        directions = torch.linalg.qr(torch.randn(length, length, generator=noise)).Q
        self.inputs = torch.randn(512, length, generator=noise) * spread @ directions.T

    def loss(self, weight: Tensor) -> Tensor:
        return (self.inputs @ (weight.flatten(1) - self.target).T).square().mean()


def optimize(optimizer: Optimizer, weight: nn.Parameter, problem: CorrelatedTarget, num_steps: int) -> float:
    for _ in range(num_steps):
        optimizer.zero_grad()
        problem.loss(weight).backward()
        optimizer.step()
    return float(problem.loss(weight).detach())


@pytest.mark.parametrize("size", [1, 3])
def test_soap_learns_more_per_step_than_adam_from_correlated_inputs(size: int) -> None:
    problem = CorrelatedTarget(16, 12, size)
    losses = []
    for make in (Soap, Adam):
        weight = nn.Parameter(torch.zeros(16, 12, size, size))
        losses.append(optimize(make([weight], lr=5e-2), weight, problem, 200))
    assert losses[0] < 0.7 * losses[1]


def test_memory_format_does_not_matter() -> None:
    problem = CorrelatedTarget(8, 6, 3)
    start = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(2))
    contiguous = nn.Parameter(start.clone())
    strided = nn.Parameter(start.to(memory_format=torch.channels_last))
    for weight in (contiguous, strided):
        optimize(Soap([weight], lr=1e-2), weight, problem, 30)
    assert strided.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(contiguous.detach(), strided.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (3, 16), (16, 3, 5, 5), (4, 3, 1), (5, 4, 2)])
def test_weights_without_channels_on_both_sides_get_steps_of_adam(shape: tuple[int, ...]) -> None:
    ours, reference = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    assert not uses_eigenbasis(ours)
    noise = torch.Generator().manual_seed(3)
    optimizers = Soap([ours], lr=1e-2), Adam([reference], lr=1e-2)
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=noise)
        reference.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, reference)


def test_bases_stay_orthonormal_and_approach_the_eigenvectors() -> None:
    weight = nn.Parameter(torch.zeros(8, 6, 3, 3))
    problem = CorrelatedTarget(8, 6, 3)
    optimizer = Soap([weight], lr=1e-3)
    optimize(optimizer, weight, problem, 150)
    state = optimizer.state[weight]
    assert [len(basis) for basis in state["basis"]] == [8, 9, 6]
    for statistics, basis in zip(state["statistics"], state["basis"], strict=True):
        torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis)), rtol=0, atol=1e-5)
        turned = basis.T @ statistics @ basis
        assert (turned - turned.diag().diag()).norm() < 0.1 * turned.norm()


def test_the_first_steps_only_gather_statistics() -> None:
    weight = nn.Parameter(torch.zeros(8, 6, 3, 3))
    problem = CorrelatedTarget(8, 6, 3)
    optimizer = Soap([weight], lr=1e-3)
    optimize(optimizer, weight, problem, FIRST_STEPS)
    assert not weight.any()
    optimize(optimizer, weight, problem, 1)
    assert weight.all()


def test_a_skipped_step_changes_neither_weights_nor_state() -> None:
    weight, bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer = Soap([weight, bias], lr=1e-2)
    for step in range(FIRST_STEPS + 3):
        for parameter in (weight, bias):
            parameter.grad = torch.full_like(parameter, 0.1 + step)
        optimizer.step()
    before = deepcopy((weight, bias, optimizer.state_dict()["state"]))
    optimizer.found_inf = torch.tensor(1.0)
    for parameter in (weight, bias):
        parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    torch.testing.assert_close((weight, bias, optimizer.state_dict()["state"]), before, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(8))
def test_channels_without_gradients_stay_as_they_are(seed: int) -> None:
    """Most hyper-latents of a trained model are always 0, and then so are their gradients in h_s."""
    noise = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(torch.ones(8, 128, 1, 1))
    live = torch.zeros(128, dtype=torch.bool)
    live[torch.randperm(128, generator=noise)[:9]] = True
    scales = torch.logspace(-1, -4, 9)[:, None, None]
    optimizer = Soap([weight], lr=1e-3)
    for _ in range(FIRST_STEPS + 25):
        weight.grad = torch.zeros_like(weight)
        weight.grad[:, live] = torch.randn(8, 9, 1, 1, generator=noise) * scales
        optimizer.step()
    assert torch.equal(weight[:, ~live], torch.ones(8, 119, 1, 1))
    assert (weight[:, live] != 1).all()
