"""The transforms g_a and g_s between images and latents (paper, table 1; Balle et al. 2018, figure 4).

g_a:  x (B, 3, H, W) -> [conv 5x5, stride 2 | GDN] x 3 -> conv 5x5, stride 2 -> y (B, M, H / 16, W / 16)
g_s:  y_hat -> [transposed conv 5x5, stride 2 | IGDN] x 3 -> transposed conv 5x5, stride 2 -> x_hat

The rest of the code knows a pair of networks only through its entry in `TRANSFORMS`; `register_transform` adds one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.config import TransformName, add_part, find_part
from jahp_pl.layers import GDN, StridedConv2d, TransposedConv2d
from jahp_pl.strides import REACH, STRIDE


def pad_to_stride(x: Tensor) -> Tensor:
    """Replicate the last row and column until H and W are multiples of 16: (B, C, H, W) -> (B, C, >= H, >= W).

    Replicated borders cost few bits, whereas zeros would add an edge to be coded. Crop the reconstruction to (H, W).
    """
    right, bottom = -x.shape[-1] % STRIDE, -x.shape[-2] % STRIDE
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if right or bottom else x


def downsample(num_in: int, num_out: int) -> StridedConv2d:
    """Create a 5x5 convolution of stride 2: (B, in, H, W) -> (B, out, ceil(H / 2), ceil(W / 2))."""
    return StridedConv2d(num_in, num_out, kernel_size=5, stride=2, padding=2)


def upsample(num_in: int, num_out: int) -> TransposedConv2d:
    """Create a 5x5 transposed convolution of stride 2: (B, in, H, W) -> (B, out, 2 H, 2 W)."""
    return TransposedConv2d(num_in, num_out, kernel_size=5, stride=2, padding=2, output_padding=1)


class AnalysisTransform(nn.Sequential):
    """g_a: image in [0, 1], (B, 3, H, W) with H and W multiples of 16 -> latents y (B, M, H / 16, W / 16).

    Args:
        num_filters: N, channels of the hidden layers.
        num_latents: M.
    """

    def __init__(self, num_filters: int, num_latents: int) -> None:
        N, M = num_filters, num_latents
        super().__init__(
            downsample(3, N), GDN(N), downsample(N, N), GDN(N), downsample(N, N), GDN(N), downsample(N, M)
        )  # fmt: skip


class SynthesisTransform(nn.Sequential):
    """g_s: quantized latents y_hat (B, M, h, w) -> reconstruction (B, 3, 16 h, 16 w), about [0, 1] but not clipped.

    Args:
        num_filters: N, channels of the hidden layers.
        num_latents: M.
    """

    def __init__(self, num_filters: int, num_latents: int) -> None:
        N, M = num_filters, num_latents
        super().__init__(
            upsample(M, N), GDN(N, inverse=True), upsample(N, N), GDN(N, inverse=True),
            upsample(N, N), GDN(N, inverse=True), upsample(N, 3),
        )  # fmt: skip


class Transforms(NamedTuple):
    """A pair of networks: sequences of layers built for N filters and M latents, each ending in a convolution."""

    analysis: Callable[[int, int], nn.Sequential]
    """(N, M) -> g_a: (B, 3, H, W) with H and W multiples of 16 -> (B, M, H / 16, W / 16)."""
    synthesis: Callable[[int, int], nn.Sequential]
    """(N, M) -> g_s: (B, M, h, w) -> (B, 3, 16 h, 16 w)."""
    reach: int
    """Receptive field radius in pixels: the largest distance at which an input of g_a or g_s changes an output. Tiles
    of large images overlap by this much."""


TRANSFORMS: dict[TransformName, Transforms] = {"gdn": Transforms(AnalysisTransform, SynthesisTransform, reach=REACH)}
"""Use `transforms_of` to look one up."""


def register_transform(name: TransformName, transforms: Transforms) -> None:
    """Add a pair of networks, to be selected by `model.transform=NAME`; it replaces an earlier one of the same name.

    Args:
        name: a new name, a Python identifier.
        transforms: g_a and g_s.

    Raises:
        ConfigError: if the name is one of the package's own, or not an identifier.
    """
    add_part("transform", name)
    TRANSFORMS[name] = transforms


def transforms_of(name: TransformName) -> Transforms:
    """Return the pair of networks registered under a name.

    Raises:
        ConfigError: if it is not registered in this process.
    """
    return find_part("transform", name, TRANSFORMS)
