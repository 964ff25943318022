"""Initializes transforms as a tree of Karhunen-Loeve transforms for textures with the statistics of photographs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPECTRAL_EXPONENT = 1.4
"""Exponent of the amplitude spectrum 1 / f^1.4. Natural scenes have about 1; photographs have more, because
optics blur them."""
CONTRASTS = (0.35, 0.0875, 0.042)
"""Standard deviations along the three orthonormal axes of `OPPONENT_AXES`, for images in [0, 1]."""
OPPONENT_AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))
"""Axes in RGB: gray, red against blue, green against magenta; normalized when they are used."""


def pink_images(num_images: int, size: int, seed: int) -> Tensor:
    """Generate Gaussian textures with the spectrum and colors of photographs: (num_images, 3, size, size), with mean
    0.5 and not clipped to [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.fft.fftfreq(2 * size)[:, None], torch.fft.rfftfreq(2 * size)[None]
    # Opposite borders of a periodic texture match, so it is made at twice the size, and a quarter of it is kept.
    amplitudes = (rows.square() + columns.square() + (0.5 / size) ** 2) ** (-SPECTRAL_EXPONENT / 2)
    white = torch.randn(num_images, 3, 2 * size, 2 * size, generator=generator)
    texture = torch.fft.irfft2(torch.fft.rfft2(white) * amplitudes)[..., :size, :size]
    axes = F.normalize(torch.tensor(OPPONENT_AXES), dim=1) * torch.tensor(CONTRASTS)[:, None]
    return 0.5 + torch.einsum("oc,bohw->bchw", axes, texture / texture.std())


def init_transforms(g_a: nn.Sequential, g_s: nn.Sequential, x: Tensor, scale: float) -> None:
    """Overwrite the weights of g_a and g_s.

    Args:
        g_a, g_s: networks with convolutions of stride 2 from pixels to latents and back.
        x: images (B, 3, H, W) minus their mean, which provide the statistics.
        scale: latents per unit of the orthonormal transform.
    """
    # The layers next to the pixels carry all of `scale`, so that the inner weights are about one and tolerate Adam's
    # steps, which have the same size for all weights. If the layers next to the latents carried it, a learning rate of
    # 1e-3 would destroy the initialization.
    downs = [layer for layer in g_a if isinstance(layer, nn.Conv2d)]
    ups = [layer for layer in g_s if isinstance(layer, nn.ConvTranspose2d)]
    for level, (down, up) in enumerate(zip(downs, reversed(ups), strict=True)):
        gain = scale if level == 0 else 1.0
        num_in = x.shape[1]
        patches = F.pixel_unshuffle(x, 2)  # (B, 4 C, h, w): taps 2 and 3 of a 5x5 kernel with stride 2, padding 2
        rows = patches.transpose(0, 1).flatten(1).double()
        eigenvectors = torch.linalg.eigh(rows @ rows.T).eigenvectors.flip(1)  # columns, largest variance first
        basis = eigenvectors[:, : down.out_channels].T.float()
        num_out = len(basis)
        kernels = basis.view(num_out, num_in, 2, 2)

        # Filters beyond the basis stay random, and the next layer ignores them until training finds a use for them.
        down.weight[:num_out] = 0
        down.weight[:, num_in:] = 0
        down.weight[:num_out, :num_in, 2:4, 2:4] = gain * kernels
        assert down.bias is not None
        assert up.bias is not None
        down.bias.zero_()
        up.bias.zero_()
        up.weight[:, :num_in] = 0
        up.weight[num_out:] = 0
        up.weight[:num_out, :num_in, 2:4, 2:4] = kernels / gain
        up.weight[:num_out, num_in:].normal_(0, 0.02 / num_in**0.5)
        if level == 0:  # inside, gray is zero
            down.bias[:num_out] = -0.5 * gain * kernels.sum((1, 2, 3))
            up.bias.fill_(0.5)
        x = F.conv2d(patches, basis[:, :, None, None])
