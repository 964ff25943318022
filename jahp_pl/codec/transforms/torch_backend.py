"""Runs g_a and g_s with torch's convolutions, on any device and in any precision, one tile at a time.

Channels are the last dimension in memory, so that a map is a matrix of positions by channels, and GDN works in place on
a few rows at a time.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from jahp_pl.codec.transforms.gdn import ROWS, MatrixGDN, Scratch
from jahp_pl.layers import GDN
from jahp_pl.quality import to_uint8


def torch_bytes(height: int, width: int, num_filters: int, num_latents: int) -> int:
    """Bound the bytes that g_a or g_s needs for (height, width) latents: maps at half the resolution and workspace.

    The bound holds in every precision, because a library makes float32 copies if the processor lacks bfloat16.
    """
    pixels = 256 * height * width
    maps = pixels * (max(num_filters, num_latents) // 4 + 3)
    return 3 * 4 * maps + 7 * 4 * pixels + 4 * ROWS * 4 * num_filters


def channels_last(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy a network without gradients, with its kernels in channels_last memory like its maps."""
    copied = copy.deepcopy(network).to(dtype).requires_grad_(False)
    return copied.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


class TorchTransform:
    """g_a or g_s with GDN and the last convolution in float32, and the other layers in a given precision.

    In bfloat16, rounding in the last convolution would change pixels near white by 1.

    Args:
        transform: trained network; its weights are copied.
        dtype: dtype of the other convolutions.
    """

    def __init__(self, transform: nn.Sequential, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.layers: list[nn.Module | MatrixGDN] = []
        *others, last = transform
        for layer in others:
            self.layers.append(MatrixGDN(layer) if isinstance(layer, GDN) else channels_last(layer, dtype))
        self.last = channels_last(last, torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the transform: (H, W, C) of any floating type -> (H', W', C') float32."""
        scratch = Scratch(x.device)
        x = x.to(self.dtype)
        for layer in self.layers:
            if isinstance(layer, MatrixGDN):
                layer.apply_(x.view(-1, x.shape[-1]), scratch)
            else:
                x = _apply(layer, x)
        return _apply(self.last, x.float())


def _apply(network: nn.Module, x: Tensor) -> Tensor:
    """Apply a network for (B, C, H, W) to a single map (H, W, C)."""
    result: Tensor = network(x.movedim(-1, 0)[None])
    return result[0].movedim(0, -1).contiguous()


class TorchAnalysis:
    """g_a in torch, with uint8 images as input.

    Args:
        g_a: trained network; its weights are copied.
        dtype: dtype of the convolutions.
    """

    def __init__(self, g_a: nn.Sequential, dtype: torch.dtype) -> None:
        self.transform = TorchTransform(g_a, dtype)

    def __call__(self, image: Tensor) -> Tensor:
        """Compute y (H / 16, W / 16, M) float32 of an image (3, H, W) uint8, H and W multiples of 16."""
        return self.transform(image.movedim(0, -1).contiguous().float().div_(255))


class TorchSynthesis:
    """g_s in torch, with uint8 images as output.

    Args:
        g_s: trained network; its weights are copied.
        dtype: dtype of the convolutions.
    """

    def __init__(self, g_s: nn.Sequential, dtype: torch.dtype) -> None:
        self.transform = TorchTransform(g_s, dtype)

    def __call__(self, y_hat: Tensor) -> Tensor:
        """Reconstruct (3, 16 h, 16 w) uint8 from y_hat (h, w, M) of any numeric type."""
        return to_uint8(self.transform(y_hat.float()).movedim(-1, 0))
