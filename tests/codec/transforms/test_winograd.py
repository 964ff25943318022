"""The strided convolutions by Winograd's algorithm equal the plain ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.transforms.gdn import MatrixGDN, Scratch
from jahp_pl.codec.transforms.winograd import PATCH, TILE, Downsampling, Upsampling, toom_cook_basis
from jahp_pl.layers import GDN
from jahp_pl.transforms import downsample, upsample

CPU = torch.device("cpu")


def random_gdn(num_channels: int, inverse: bool) -> GDN:
    gdn = GDN(num_channels, inverse=inverse)
    with torch.no_grad():
        gdn.gamma += torch.rand_like(gdn.gamma) * 0.2
        gdn.beta += torch.rand_like(gdn.beta)
    return gdn


def channels_last(x: Tensor) -> Tensor:
    return x[0].movedim(0, -1).contiguous()


def error(y: Tensor, exact: Tensor) -> float:
    """Return the root mean square difference, in units of the standard deviation."""
    return float((y - channels_last(exact)).square().mean().sqrt() / exact.std())


def test_products_at_the_points_are_a_convolution() -> None:
    basis, x, g = toom_cook_basis(), torch.randn(PATCH, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    expected = torch.stack([(x[i : i + 3] * g).sum() for i in range(TILE)])
    torch.testing.assert_close(basis.outputs @ ((basis.taps @ g) * (basis.inputs @ x)), expected)


@pytest.mark.parametrize("num_channels", [(1, 1), (7, 5), (128, 96)])
@pytest.mark.parametrize(("num_rows", "num_columns"), [(1, 1), (1, 9), (5, 2)])
@pytest.mark.parametrize("normalized", [False, True])
@torch.no_grad()
def test_upsampling_is_the_transposed_convolution(
    num_channels: tuple[int, int], num_rows: int, num_columns: int, normalized: bool
) -> None:
    conv, gdn = upsample(*num_channels), random_gdn(num_channels[1], inverse=True)
    x = torch.randn(1, num_channels[0], TILE * num_rows, TILE * num_columns)
    out = torch.full((8 * num_rows, 8 * num_columns, num_channels[1]), torch.nan)
    layer = Upsampling(conv, MatrixGDN(gdn) if normalized else None)
    layer.convolve_strip(channels_last(F.pad(x, (1, 1, 1, 1))), out, Scratch(CPU))
    exact = conv.double()(x.double())
    assert error(out, gdn.double()(exact) if normalized else exact) < 5e-6


@pytest.mark.parametrize("num_channels", [(1, 1), (7, 5), (128, 96)])
@pytest.mark.parametrize(("num_rows", "num_columns"), [(1, 1), (1, 9), (5, 2)])
@pytest.mark.parametrize("normalized", [False, True])
@torch.no_grad()
def test_downsampling_is_the_strided_convolution(
    num_channels: tuple[int, int], num_rows: int, num_columns: int, normalized: bool
) -> None:
    conv, gdn = downsample(*num_channels), random_gdn(num_channels[1], inverse=False)
    x = torch.randn(1, num_channels[0], 8 * num_rows, 8 * num_columns)
    out = torch.full((TILE * num_rows, TILE * num_columns, num_channels[1]), torch.nan)
    layer = Downsampling(conv, MatrixGDN(gdn) if normalized else None)
    layer.convolve_strip(channels_last(F.pad(x, (2, 2, 2, 2))), out, Scratch(CPU))
    exact = conv.double()(x.double())
    assert error(out, gdn.double()(exact) if normalized else exact) < 5e-6


def test_a_window_of_a_larger_map_can_be_written() -> None:
    conv, canvas = upsample(3, 4), torch.zeros(12, 20, 4)
    x = channels_last(torch.randn(1, 3, 6, 10))
    alone = torch.empty(8, 16, 4)
    with torch.no_grad():
        layer = Upsampling(conv, None)
        layer.convolve_strip(x, alone, Scratch(CPU))
        layer.convolve_strip(x, canvas[2:10, 2:18], Scratch(CPU))
    assert torch.equal(canvas[2:10, 2:18], alone)
    canvas[2:10, 2:18] = 0
    assert not canvas.any()
