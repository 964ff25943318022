"""Shapes, layers and symmetries of h_a and h_s."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jahp_pl.hyperprior import HyperAnalysis, HyperSynthesis, crop_to


@pytest.mark.parametrize("magnitudes", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 4), (5, 3), (7, 9), (8, 12)])
def test_z_has_a_quarter_of_the_sides_rounded_up_and_h_s_covers_y_again(
    size: tuple[int, int], magnitudes: bool
) -> None:
    h_a, h_s = HyperAnalysis(4, 6, magnitudes), HyperSynthesis(4, 6, 12, magnitudes)
    y = torch.randn(2, 6, *size)
    z = h_a(y)
    quarter = [-(-side // 4) for side in size]
    assert z.shape == (2, 4, *quarter)
    psi = h_s(z)
    assert psi.shape == (2, 12, 4 * quarter[0], 4 * quarter[1])
    cropped = crop_to(psi, y)
    assert cropped.shape == (2, 12, *size)
    assert torch.equal(cropped, psi[:, :, : size[0], : size[1]])


def test_the_scale_only_entropy_model_sees_magnitudes_and_the_others_signs() -> None:
    y = torch.randn(1, 6, 8, 8)
    scale_only, signed = HyperAnalysis(4, 6, magnitudes=True), HyperAnalysis(4, 6, magnitudes=False)
    assert torch.equal(scale_only(y), scale_only(-y))
    assert not torch.equal(signed(y), signed(-y))


def test_the_input_is_not_modified() -> None:
    for magnitudes in (False, True):
        y = torch.randn(1, 6, 8, 8)
        before = y.clone()
        HyperAnalysis(4, 6, magnitudes)(y)
        assert torch.equal(y, before)


@pytest.mark.parametrize(
    ("magnitudes", "activation", "widths"), [(False, nn.LeakyReLU, [4, 6, 9, 12]), (True, nn.ReLU, [4, 4, 4, 12])]
)
def test_layers_are_those_of_the_paper(magnitudes: bool, activation: type[nn.Module], widths: list[int]) -> None:
    h_a, h_s = HyperAnalysis(4, 6, magnitudes), HyperSynthesis(4, 6, 12, magnitudes)
    for network, channels, kernels in ((h_a, [6, 4, 4, 4], [3, 5, 5]), (h_s, widths, [5, 5, 3])):
        convolutions = list(network)[::2]
        assert [convolutions[0].in_channels, *(c.out_channels for c in convolutions)] == channels
        assert [c.kernel_size for c in convolutions] == [(k, k) for k in kernels]
        assert [type(a) for a in list(network)[1::2]] == [activation] * 2
    slopes = {a.negative_slope for n in (h_a, h_s) for a in n if isinstance(a, nn.LeakyReLU)}
    assert slopes <= {0.01}
