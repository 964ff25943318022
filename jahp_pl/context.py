"""The autoregressive part of the model: context prediction g_cm and entropy parameters g_ep (section 2, table 1).

The rest of the code knows g_ep only through its entry in `ENTROPY_NETWORKS`; `register_entropy_network` adds one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from jahp_pl.config import add_part, find_part
from jahp_pl.layers import MaskedConv2d


class ContextPrediction(MaskedConv2d):
    """g_cm: y_hat (B, M, h, w) -> phi (B, 2M, h, w), at each position a linear function of 12 earlier positions.

    Args:
        num_latents: M.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__(num_latents, 2 * num_latents, kernel_size=5)


class EntropyParameterNetwork(nn.Sequential):
    """g_ep: three 1x1 convolutions that fuse psi and phi (B, in, h, w) into raw entropy parameters of each latent.

    With 1x1 kernels, no position depends on another, so only g_cm has to be causal. The widths 10M/3 and 8M/3 are
    evenly spaced between the joint model's 4M inputs and a Gaussian's 2M outputs.

    Args:
        num_latents: M.
        num_inputs: 4M for psi and phi together (joint), 2M for phi alone (context-only).
        num_outputs: M times the number of parameters per latent.
    """

    def __init__(self, num_latents: int, num_inputs: int, num_outputs: int) -> None:
        hidden1, hidden2 = num_latents * 10 // 3, num_latents * 8 // 3
        super().__init__(
            nn.Conv2d(num_inputs, hidden1, 1), nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(hidden1, hidden2, 1), nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(hidden2, num_outputs, 1),
        )  # fmt: skip


EntropyNetwork = Callable[[int, int, int], nn.Sequential]
"""Builds g_ep from M, the number of inputs (psi, then phi) and the number of outputs, of layers that `exact_layers`
accepts."""
ENTROPY_NETWORKS: dict[str, EntropyNetwork] = {"conv": EntropyParameterNetwork}
"""Use `entropy_network_of` to look one up."""


def register_entropy_network(name: str, network: EntropyNetwork) -> None:
    """Add a network, to be selected by `model.entropy_network=NAME`; it replaces an earlier one of the same name.

    Args:
        name: a new name, a Python identifier.
        network: builds g_ep.

    Raises:
        ConfigError: if the name is one of the package's own, or not an identifier.
    """
    add_part("entropy_network", name)
    ENTROPY_NETWORKS[name] = network


def entropy_network_of(name: str) -> EntropyNetwork:
    """Return the builder of the network registered under a name.

    Raises:
        ConfigError: if it is not registered in this process.
    """
    return find_part("entropy_network", name, ENTROPY_NETWORKS)
