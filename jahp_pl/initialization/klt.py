"""Initializes transforms as a tree of Karhunen-Loeve transforms (KLTs), each of 2 x 2 patches of the one before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE = 0.02
"""Standard deviation of the weights from a used filter to the unused ones of the next layer, times the square root of
the number of used ones."""


def init_transforms(g_a: nn.Sequential, g_s: nn.Sequential, x: Tensor, scale: float) -> None:
    """Overwrite the weights of g_a and g_s.

    Args:
        g_a, g_s: networks with 5x5 convolutions of stride 2 from pixels to latents and back.
        x: images (B, 3, H, W) minus their mean, which provide the statistics.
        scale: latents per unit of the orthonormal transform.
    """
    # The layers next to the pixels carry all of `scale`, so that the inner weights are about one and tolerate Adam's
    # steps, which have the same size for all weights. If the layers next to the latents carried it, a learning rate of
    # 1e-3 would destroy the initialization.
    downs = [layer for layer in g_a if isinstance(layer, nn.Conv2d)]
    ups = [layer for layer in g_s if isinstance(layer, nn.ConvTranspose2d)]
    for level, (down, up) in enumerate(zip(downs, reversed(ups), strict=True)):
        patches = F.pixel_unshuffle(x, 2)  # (B, 4 C, h, w)
        basis = _klt(patches, down.out_channels)
        gain = scale if level == 0 else 1.0
        kernels = basis.view(len(basis), -1, 2, 2)
        _init_pair(down, up, kernels, gain)
        if level == 0:
            _center(down, up, kernels, gain)
        x = F.conv2d(patches, basis[:, :, None, None])


def _klt(x: Tensor, num_outputs: int) -> Tensor:
    """Return the orthonormal rows of the KLT of x (B, C, h, w), largest energy first: (at most num_outputs, C)."""
    rows = x.transpose(0, 1).flatten(1).double()
    eigenvectors = torch.linalg.eigh(rows @ rows.T).eigenvectors.flip(1)  # columns, largest energy first
    basis: Tensor = eigenvectors[:, :num_outputs].T.float()
    return basis


def _init_pair(down: nn.Conv2d, up: nn.ConvTranspose2d, kernels: Tensor, gain: float) -> None:
    """Let a layer of g_a apply orthonormal kernels times a gain, and its counterpart in g_s the inverse.

    Filters without a kernel stay random, and the next layer ignores them until training finds a use for them.

    Args:
        down: 5x5 convolution of stride 2 and padding 2, of whose kernel taps 2 and 3 cover a patch.
        up: transposed convolution of the same geometry.
        kernels: (filters, C, 2, 2), orthonormal; C may be less than the layers have channels.
        gain: factor of g_a's kernels.
    """
    num_out, num_in = kernels.shape[:2]
    assert down.bias is not None
    assert up.bias is not None
    down.weight[:num_out] = 0
    down.weight[:, num_in:] = 0
    down.weight[:num_out, :num_in, 2:4, 2:4] = gain * kernels
    down.bias.zero_()
    up.weight[:, :num_in] = 0
    up.weight[num_out:] = 0
    up.weight[:num_out, :num_in, 2:4, 2:4] = kernels / gain
    up.weight[:num_out, num_in:].normal_(0, NOISE / num_in**0.5)
    up.bias.zero_()


def _center(down: nn.Conv2d, up: nn.ConvTranspose2d, kernels: Tensor, gain: float) -> None:
    """Let the layers next to the pixels subtract and add 0.5, so that gray is zero inside; see `_init_pair`."""
    assert down.bias is not None
    assert up.bias is not None
    down.bias[: len(kernels)] = -0.5 * gain * kernels.sum((1, 2, 3))
    up.bias.fill_(0.5)
