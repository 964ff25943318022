"""GDN that is computed in blocks equals GDN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jahp_pl import blocked_gdn
from jahp_pl.blocked_gdn import supports_blocks
from jahp_pl.layers import GDN


def layer(inverse: bool, num_channels: int = 12) -> GDN:
    gdn = GDN(num_channels, inverse)
    with torch.no_grad():
        gdn.gamma += 0.3 * torch.rand(num_channels, num_channels)
        gdn.beta += torch.rand(num_channels)
    return gdn


def step(gdn: GDN, x: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of an unevenly weighted sum with respect to x, beta and gamma."""
    gdn.zero_grad()
    x = x.clone().requires_grad_()
    y = gdn(x)
    (y.float() * torch.linspace(-1, 2, y.shape[-1])).sum().backward()
    assert x.grad is not None
    assert gdn.beta.grad is not None
    assert gdn.gamma.grad is not None
    return [y.detach(), x.grad, gdn.beta.grad.clone(), gdn.gamma.grad.clone()]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("rows", [64, 2048])
def test_values_and_gradients_are_those_of_the_plain_layer(
    inverse: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_gdn, "ROWS", rows)
    gdn, x = layer(inverse), torch.randn(2, 12, 20, 31)
    assert not supports_blocks(x)
    last = x.contiguous(memory_format=torch.channels_last)
    assert supports_blocks(last)
    for plain, blocked in zip(step(gdn, x), step(gdn, last), strict=True):
        torch.testing.assert_close(blocked, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize("inverse", [False, True])
def test_bfloat16_is_within_its_rounding(inverse: bool) -> None:
    gdn, x = layer(inverse), torch.randn(2, 12, 40, 40).contiguous(memory_format=torch.channels_last).bfloat16()
    plain, rough = step(gdn, x.float()), step(gdn, x)
    assert rough[0].dtype == torch.bfloat16
    for exact, rounded in zip(plain, rough, strict=True):
        error = float((rounded.float() - exact).norm() / exact.norm())
        assert error < 2**-6  # eight half-steps of bfloat16, as the sums over positions partly cancel


def test_the_result_stays_in_channels_last() -> None:
    y, grad, *_ = step(layer(False), torch.randn(1, 12, 9, 7).contiguous(memory_format=torch.channels_last))
    assert supports_blocks(y)
    assert supports_blocks(grad)


def test_without_gradients_the_plain_layer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("jahp_pl.layers.gdn", refuse)
    x = torch.randn(1, 12, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert layer(True)(x).shape == x.shape


@pytest.mark.parametrize("inverse", [False, True])
def test_the_operators_satisfy_torchs_checks(inverse: bool) -> None:
    gdn = layer(inverse, 4)
    x = torch.randn(1, 4, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    beta, gamma = (value.detach().requires_grad_() for value in gdn.beta_gamma())
    torch.library.opcheck(
        blocked_gdn.gdn_operator,
        (x, beta, gamma, inverse),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


@pytest.mark.parametrize("inverse", [False, True])
def test_frozen_weights_do_not_change_the_gradient_of_the_map(inverse: bool) -> None:
    gdn, x = layer(inverse), torch.randn(1, 12, 9, 7).contiguous(memory_format=torch.channels_last)
    _, expected, *_ = step(gdn, x)
    gdn.requires_grad_(False)
    x.requires_grad_()
    y = gdn(x)
    (y * torch.linspace(-1, 2, y.shape[-1])).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_operators_of_compiled_graphs_give_the_same(inverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gdn, x = layer(inverse), torch.randn(2, 12, 20, 31).contiguous(memory_format=torch.channels_last)
    plain = step(gdn, x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for one, other in zip(step(gdn, x), plain, strict=True):
        assert torch.equal(one, other)
