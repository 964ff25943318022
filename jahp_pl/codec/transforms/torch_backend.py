"""g_a and g_s by the convolutions of torch, on any device and in any precision, a whole tile at a time.

Channels are the last dimension in memory, so that a map is a matrix of positions by channels and GDN works in place on
a few rows of it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from jahp_pl.codec.transforms.gdn import ROWS, MatrixGDN, Scratch
from jahp_pl.layers import GDN
from jahp_pl.quality import to_uint8


def direct_bytes(height: int, width: int, num_filters: int, num_latents: int) -> int:
    """Memory that g_a or g_s takes at most for (height, width) latents, in bytes: maps at half the resolution and what
    a library needs beside them.

    The same in every precision: where a processor lacks bfloat16, a library makes float32 copies.
    """
    pixels = 256 * height * width
    maps = pixels * (max(num_filters, num_latents) // 4 + 3)
    return 3 * 4 * maps + 7 * 4 * pixels + 4 * ROWS * 4 * num_filters


def channels_last(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A frozen copy whose kernels lie in memory as its maps will."""
    frozen = copy.deepcopy(network).to(dtype).requires_grad_(False)
    return frozen.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


class DirectTransform:
    """g_a or g_s: convolutions and other layers in one precision, GDN in float32.

    The last convolution is in float32 always: rounded to bfloat16, pixels near white would be a whole level apart.

    Args:
        transform: trained; its weights are copied.
        dtype: of the other convolutions.
    """

    def __init__(self, transform: nn.Sequential, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.layers: list[nn.Module | MatrixGDN] = []
        *others, last = transform
        for layer in others:
            self.layers.append(MatrixGDN(layer) if isinstance(layer, GDN) else channels_last(layer, dtype))
        self.last = channels_last(last, torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        """(H, W, C), any floating type -> (H', W', C') float32."""
        scratch = Scratch(x.device)
        x = x.to(self.dtype)
        for layer in self.layers:
            if isinstance(layer, MatrixGDN):
                layer.apply_(x.view(-1, x.shape[-1]), scratch)
            else:
                x = _apply(layer, x)
        return _apply(self.last, x.float())


def _apply(network: nn.Module, x: Tensor) -> Tensor:
    """A network of (B, C, H, W) on one (H, W, C)."""
    result: Tensor = network(x.movedim(-1, 0)[None])
    return result[0].movedim(0, -1).contiguous()


class DirectAnalysis:
    """g_a of uint8 images.

    Args:
        g_a: trained; its weights are copied.
        dtype: of the convolutions.
    """

    def __init__(self, g_a: nn.Sequential, dtype: torch.dtype) -> None:
        self.transform = DirectTransform(g_a, dtype)

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8, H and W multiples of 16 -> y (H / 16, W / 16, M) float32."""
        return self.transform(image.movedim(0, -1).contiguous().float().div_(255))


class DirectSynthesis:
    """g_s to uint8 images.

    Args:
        g_s: trained; its weights are copied.
        dtype: of the convolutions.
    """

    def __init__(self, g_s: nn.Sequential, dtype: torch.dtype) -> None:
        self.transform = DirectTransform(g_s, dtype)

    def __call__(self, y_hat: Tensor) -> Tensor:
        """(h, w, M), any numeric type -> (3, 16 h, 16 w) uint8."""
        return to_uint8(self.transform(y_hat.float()).movedim(-1, 0))
