"""The last layer of g_s at half the resolution equals the transposed convolution that it replaces."""

from __future__ import annotations

import torch
from torch import nn

from jahp_pl.codec.search.subpixel import SubpixelConvolution, with_subpixel_end
from jahp_pl.transforms import SynthesisTransform, upsample


def test_values_and_gradients_equal_those_of_the_transposed_convolution() -> None:
    layer = upsample(6, 3)
    x, weights = torch.randn(1, 6, 5, 7), torch.randn(1, 3, 10, 14)
    results = []
    for convolution in (layer, SubpixelConvolution(layer)):
        leaf = x.clone().requires_grad_()
        y = convolution(leaf)
        results.append((y.detach(), *torch.autograd.grad((y * weights).sum(), leaf)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_only_the_last_layer_is_replaced_and_only_if_it_is_that_of_the_paper() -> None:
    g_s = SynthesisTransform(4, 6)
    *layers, last = with_subpixel_end(g_s)
    assert layers == list(g_s)[:-1]
    assert isinstance(last, SubpixelConvolution)
    other = nn.Sequential(nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1))
    assert list(with_subpixel_end(other)) == list(other)
