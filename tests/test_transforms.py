"""Shapes, padding and layers of g_a and g_s."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jahp_pl.config import BUILT_IN, TransformName
from jahp_pl.layers import GDN, StridedConv2d, TransposedConv2d
from jahp_pl.transforms import (
    TRANSFORMS,
    AnalysisTransform,
    SynthesisTransform,
    downsample,
    pad_to_stride,
    upsample,
)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (15, 16), (16, 16), (17, 33), (48, 31)])
def test_padding_replicates_the_last_row_and_column_up_to_multiples_of_16(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    bottom, right = (-(-side // 16) * 16 - side for side in size)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge")
    assert np.array_equal(pad_to_stride(x).numpy(), expected)


def test_an_image_that_fits_is_not_copied() -> None:
    x = torch.rand(1, 3, 32, 48)
    assert pad_to_stride(x) is x


@pytest.mark.parametrize("size", [(16, 16), (32, 80)])
def test_latents_have_a_sixteenth_of_the_sides_and_g_s_restores_them(size: tuple[int, int]) -> None:
    g_a, g_s = AnalysisTransform(6, 10), SynthesisTransform(6, 10)
    y = g_a(torch.rand(2, 3, *size))
    assert y.shape == (2, 10, size[0] // 16, size[1] // 16)
    assert g_s(y).shape == (2, 3, *size)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 9])
def test_downsampling_halves_rounding_up_and_upsampling_doubles(side: int) -> None:
    x = torch.rand(1, 2, side, side + 1)
    assert downsample(2, 3)(x).shape == (1, 3, -(-side // 2), -(-(side + 1) // 2))
    assert upsample(2, 3)(x).shape == (1, 3, 2 * side, 2 * side + 2)


def test_layers_are_those_of_the_paper() -> None:
    g_a, g_s = AnalysisTransform(6, 10), SynthesisTransform(6, 10)
    for network, kind, inverse, channels in (
        (g_a, StridedConv2d, False, [3, 6, 6, 6, 10]),
        (g_s, TransposedConv2d, True, [10, 6, 6, 6, 3]),
    ):
        convolutions, normalizations = list(network)[::2], list(network)[1::2]
        assert all(type(c) is kind and c.kernel_size == (5, 5) and c.stride == (2, 2) for c in convolutions)
        assert [convolutions[0].in_channels, *(c.out_channels for c in convolutions)] == channels
        assert [type(n) for n in normalizations] == [GDN] * 3
        assert all(isinstance(n, GDN) and n.inverse is inverse for n in normalizations)


@pytest.mark.parametrize("transform", [AnalysisTransform, SynthesisTransform])
def test_channels_last_gives_the_same_values_and_gradients(transform: type[nn.Sequential], photos: Tensor) -> None:
    network = transform(24, 32)
    x = photos[:2, :, :64, :64] if transform is AnalysisTransform else torch.randn(2, 32, 4, 4)
    upstream = torch.randn_like(network(x))
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=memory_format).zero_grad()
        leaf = x.clone(memory_format=memory_format).requires_grad_()
        y = network(leaf)
        y.backward(upstream)
        results.append([y, leaf.grad, *(p.grad.clone() for p in network.parameters())])
    for contiguous, channels_last in zip(*results, strict=True):
        scale = contiguous.abs().max().item()
        torch.testing.assert_close(channels_last, contiguous, rtol=0, atol=2e-5 * scale)


def test_gradients_reach_the_image_from_every_position_of_the_latents() -> None:
    g_a, x = AnalysisTransform(4, 5), torch.rand(1, 3, 48, 48, requires_grad=True)
    y = g_a(x)
    for row, column in ((0, 0), (1, 2), (2, 1)):
        (gradient,) = torch.autograd.grad(y[..., row, column].sum(), x, retain_graph=True)
        touched = gradient[0].abs().sum(0).nonzero()
        # Four 5x5 convolutions with stride 2 see 61 pixels, 30 on each side of pixel 16 i.
        low = torch.tensor([max(0, 16 * row - 30), max(0, 16 * column - 30)])
        high = torch.tensor([min(47, 16 * row + 30), min(47, 16 * column + 30)])
        assert torch.equal(touched.min(0).values, low)
        assert torch.equal(touched.max(0).values, high)


def test_every_transform_of_the_configuration_has_its_networks_and_no_other_does() -> None:
    assert tuple(TRANSFORMS) == BUILT_IN["transform"]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_an_input_influences_outputs_exactly_within_the_reach(name: TransformName) -> None:
    g_a, g_s, reach = TRANSFORMS[name].analysis(6, 10), TRANSFORMS[name].synthesis(6, 10), TRANSFORMS[name].reach
    side = 2 * -(-reach // 16) + 3
    middle = side // 2
    x = torch.rand(1, 3, 16 * side, 16 * side, requires_grad=True)
    g_a(x)[..., middle, middle].sum().backward()
    y_hat = torch.randn(1, 10, side, side, requires_grad=True)
    pixel = 16 * middle + 7
    g_s(y_hat)[..., pixel, pixel].sum().backward()
    assert x.grad is not None
    assert y_hat.grad is not None
    seen = (x.grad[0].abs().sum(0) > 0).nonzero() - 16 * middle
    heard = 16 * (y_hat.grad[0].abs().sum(0) > 0).nonzero() - pixel
    assert int(seen.abs().max()) == reach
    assert reach - 16 < int(heard.abs().max()) <= reach
