"""GDN and the convolutions agree with their formulas or with torch's own layers, and handle edge cases."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.layers import GDN, MaskedConv2d, StridedConv2d, TransposedConv2d


def randomized(layer: GDN) -> GDN:
    with torch.no_grad():
        layer.beta.uniform_(0.2, 1.5)
        layer.gamma.uniform_(0.05, 0.6)
    return layer


def loop_gdn(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
    """Compute the formula element by element in double precision."""
    out = torch.empty(x.shape, dtype=torch.float64)
    batch, channels, height, width = x.shape
    for n in range(batch):
        for i in range(channels):
            for r in range(height):
                for c in range(width):
                    pool = float(beta[i])
                    for j in range(channels):
                        pool += float(gamma[i, j]) * float(x[n, j, r, c]) ** 2
                    root = math.sqrt(pool)
                    out[n, i, r, c] = float(x[n, i, r, c]) * (root if inverse else 1 / root)
    return out


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_its_formula(inverse: bool) -> None:
    layer, x = randomized(GDN(4, inverse)), torch.randn(2, 4, 3, 5) * 3
    # Square roots are stored: value = s^2 - 2^-36 above the bound.
    beta, gamma = layer.beta.detach().double() ** 2 - 2**-36, layer.gamma.detach().double() ** 2 - 2**-36
    torch.testing.assert_close(layer(x).double(), loop_gdn(x, beta, gamma, inverse), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_starts_with_beta_one_and_a_tenth_of_the_identity(inverse: bool) -> None:
    x = torch.randn(2, 6, 4, 4)
    root = torch.sqrt(1 + 0.1 * x.square())
    torch.testing.assert_close(GDN(6, inverse)(x), x * root if inverse else x / root)


def test_without_gamma_igdn_inverts_gdn() -> None:
    forward, backward = GDN(5, gamma_init=0.0), GDN(5, inverse=True, gamma_init=0.0)
    with torch.no_grad():
        forward.beta.uniform_(0.5, 2.0)
        backward.beta.copy_(forward.beta)
    x = torch.randn(2, 5, 6, 7)
    torch.testing.assert_close(backward(forward(x)), x)


def test_parameters_below_their_bounds_give_a_finite_positive_norm_and_can_return() -> None:
    layer = GDN(3)
    with torch.no_grad():
        layer.beta.fill_(-5.0)
        layer.gamma.fill_(-5.0)
    x = torch.randn(1, 3, 4, 4)
    y = layer(x)
    torch.testing.assert_close(y, x / math.sqrt(GDN.BETA_MIN), rtol=1e-4, atol=0)  # gamma = 0, beta = its bound
    y.square().sum().backward()  # |y| falls as beta and gamma rise, so the gradient must not be cut off
    for parameter in (layer.beta, layer.gamma):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert (parameter.grad < 0).all()


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_gradients_are_those_of_finite_differences(inverse: bool) -> None:
    layer = randomized(GDN(3, inverse)).double()
    x = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    names = list(dict(layer.named_parameters()))

    def apply(x: Tensor, *parameters: Tensor) -> Any:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(apply, (x, *layer.parameters()))


def plain_gdn(layer: GDN, x: Tensor) -> Tensor:
    """Compute the formula; autograd differentiates it."""
    beta, gamma = layer.beta_gamma()
    norm = F.conv2d(x.square(), gamma[:, :, None, None], beta)
    return x * torch.sqrt(norm) if layer.inverse else x * torch.rsqrt(norm)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_gdn_and_its_gradients_are_those_of_the_plain_formula(batch: int, inverse: bool) -> None:
    layer, x = randomized(GDN(24, inverse)), torch.randn(batch, 24, 10, 13) * 3
    weights = torch.randn_like(x)
    results = []
    for apply in (layer, lambda x: plain_gdn(layer, x)):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        y = apply(leaf)
        (y * weights).sum().backward()
        results.append([y, leaf.grad, layer.beta.grad.clone(), layer.gamma.grad.clone()])
    ours, plain = results
    assert torch.equal(ours[0], plain[0])
    for one, other in zip(ours[1:], plain[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
    with torch.no_grad():
        assert torch.equal(layer(x), plain[0])


def test_gdn_does_not_modify_its_input() -> None:
    layer, x = randomized(GDN(6)), torch.randn(2, 6, 4, 5, requires_grad=True)
    grad = torch.randn(2, 6, 4, 5)
    values = [x.detach().clone(), grad.clone()]
    y = layer(x)
    for _ in range(2):
        x.grad = None
        y.backward(grad, retain_graph=True)
        values.append(x.grad.clone())  # type: ignore[attr-defined]
    assert torch.equal(x, values[0])
    assert torch.equal(grad, values[1])
    assert torch.equal(values[2], values[3])


def test_gdn_keeps_two_maps_beside_its_output_for_the_backward_pass() -> None:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    for inverse in (False, True):
        kept.clear()
        x = torch.randn(2, 8, 16, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = GDN(8, inverse)(x)
        kept.pop(y.untyped_storage().data_ptr(), None)
        assert sum(numel == x.numel() for numel in kept.values()) == 2


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_computes_in_float32_under_bfloat16_autocast(inverse: bool) -> None:
    layer, x = randomized(GDN(8, inverse)), torch.randn(2, 8, 5, 5) * 300
    with torch.autocast("cpu", dtype=torch.bfloat16):
        from_half, from_single = layer(x.bfloat16()), layer(x)
    assert from_half.dtype == from_single.dtype == torch.float32
    assert torch.equal(from_half, layer(x.bfloat16().float()))
    assert torch.equal(from_single, layer(x))


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_in_channels_last_equals_contiguous(inverse: bool) -> None:
    layer, x = randomized(GDN(32, inverse)), torch.randn(2, 32, 9, 11)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        layer.zero_grad()
        leaf = x.clone(memory_format=memory_format).requires_grad_()
        y = layer(leaf)
        assert y.is_contiguous(memory_format=memory_format)
        y.square().sum().backward()
        results.append([y, leaf.grad, layer.beta.grad.clone(), layer.gamma.grad.clone()])
    for contiguous, channels_last in zip(*results, strict=True):
        torch.testing.assert_close(channels_last, contiguous, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_a_masked_convolution_is_the_sum_over_the_taps_before_its_center(kernel_size: int) -> None:
    layer, x = MaskedConv2d(2, 3, kernel_size), torch.randn(1, 2, 6, 7)
    reach = kernel_size // 2
    expected = layer.bias.detach().view(1, 3, 1, 1).repeat(1, 1, 6, 7)
    for row in range(6):
        for column in range(7):
            for up in range(reach + 1):
                for across in range(-reach, reach + 1):
                    r, c = row - up, column + across
                    is_before = up > 0 or across < 0
                    if is_before and r >= 0 and 0 <= c < 7:
                        tap = layer.weight.detach()[:, :, reach - up, reach + across]
                        expected[0, :, row, column] += tap @ x[0, :, r, c]
    torch.testing.assert_close(layer(x), expected)


def test_a_5x5_mask_keeps_twelve_taps_and_the_others_get_no_gradient() -> None:
    layer = MaskedConv2d(3, 4)
    assert layer.mask.sum() == 12
    layer(torch.randn(1, 3, 9, 9)).square().sum().backward()
    assert layer.weight.grad is not None
    live = layer.weight.grad != 0
    assert torch.equal(live, layer.mask.bool().expand_as(live))


def test_weights_under_the_mask_change_nothing() -> None:
    layer, x = MaskedConv2d(3, 4), torch.randn(1, 3, 9, 9)
    before = layer(x)
    with torch.no_grad():
        layer.weight += 1e6 * (1 - layer.mask)
    assert torch.equal(layer(x), before)


def test_the_mask_is_not_part_of_a_checkpoint() -> None:
    assert set(MaskedConv2d(3, 4).state_dict()) == {"weight", "bias"}


def test_a_masked_convolution_in_channels_last_equals_contiguous() -> None:
    layer, x = MaskedConv2d(16, 32), torch.randn(2, 16, 9, 11)
    expected = layer(x)
    converted = nn.Sequential(layer).to(memory_format=torch.channels_last)
    torch.testing.assert_close(converted(x.contiguous(memory_format=torch.channels_last)), expected)


def leave_nan_in_freed_memory() -> None:
    """Fill blocks of many sizes with NaN and free them, so that a kernel that reads beyond its arguments finds NaN."""
    sizes = [int(factor * 2**exponent) for exponent in range(3, 19) for factor in (1, 1.3, 1.7) for _ in range(4)]
    _ = [torch.full((size,), math.nan) for size in sizes]


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (5, 1), (4, 4)])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_gradients_of_a_strided_convolution_depend_on_nothing_but_its_map(
    size: tuple[int, int], is_mixed: bool
) -> None:
    layer = StridedConv2d(32, 32, kernel_size=5, stride=2, padding=2)
    reference = nn.Conv2d(32, 32, kernel_size=5, stride=2, padding=2).double()
    reference.load_state_dict(layer.state_dict())
    for _ in range(10):
        x = torch.randn(2, 32, *size)
        gradients = []
        for convolution, leaf in ((layer, x.clone()), (reference, x.double())):
            convolution.zero_grad()
            leaf.requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                y = convolution(leaf)
            leave_nan_in_freed_memory()
            y.sum().backward()
            gradients.append([g.double() for g in (y.detach(), leaf.grad, convolution.weight.grad)])
        torch.testing.assert_close(*gradients, rtol=2e-2, atol=5e-2 if is_mixed else 1e-5)


@pytest.mark.parametrize("is_mixed", [False, True])
def test_a_transposed_convolution_and_its_gradients_are_those_of_torch(is_mixed: bool) -> None:
    geometry = {"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1}
    ours, theirs = TransposedConv2d(8, 6, **geometry), nn.ConvTranspose2d(8, 6, **geometry)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 9, 7).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(2, 6, 18, 14)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            y = layer(leaf)
        (y.float() * weight).sum().backward()
        results.append((y.detach(), leaf.grad, layer.weight.grad, layer.bias.grad))
    (*exact, by_bias), (*expected, expected_by_bias) = results
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(exact, expected, strict=True))
    torch.testing.assert_close(by_bias, expected_by_bias, rtol=2e-2 if is_mixed else 1e-5, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_a_fixed_transposed_convolution_passes_the_gradient_on() -> None:
    layer = TransposedConv2d(4, 3, kernel_size=5, stride=2, padding=2, output_padding=1).requires_grad_(False)
    x = torch.randn(1, 4, 5, 5, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert layer.weight.grad is None
