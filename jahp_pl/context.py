"""The autoregressive half of the model: context prediction g_cm and entropy parameters g_ep (paper, section 2, table
1)."""

from __future__ import annotations

from torch import nn

from jahp_pl.layers import MaskedConv2d


class ContextPrediction(MaskedConv2d):
    """g_cm: y_hat (B, M, h, w) -> phi (B, 2M, h, w), at each position a linear function of the 12 decoded before it.

    Args:
        num_latents: M.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__(num_latents, 2 * num_latents, kernel_size=5)


class EntropyParameterNetwork(nn.Sequential):
    """g_ep: three 1x1 convolutions that fuse psi and phi, (B, in, h, w), into the raw entropy parameters of each
    latent.

    1x1, so that a position depends on no other; all causality is in g_cm. Widths 10M/3 and 8M/3 step evenly from the 4M
    inputs of the joint model to the 2M outputs of a Gaussian.

    Args:
        num_latents: M.
        num_inputs: 4M for psi and phi together (joint), 2M for phi alone (context-only).
        num_outputs: M times the parameters per latent.
    """

    def __init__(self, num_latents: int, num_inputs: int, num_outputs: int) -> None:
        hidden1, hidden2 = num_latents * 10 // 3, num_latents * 8 // 3
        super().__init__(
            nn.Conv2d(num_inputs, hidden1, 1), nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(hidden1, hidden2, 1), nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(hidden2, num_outputs, 1),
        )  # fmt: skip
