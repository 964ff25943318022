"""Initial weights that make the model a usable transform coder before its first step.

Default initial weights shrink the signal layer by layer: the reconstruction starts at 6 dB, and most of a short run
goes into leaving 20 dB. Here g_a starts as a tree of orthonormal transforms of 2x2 patches (each the Karhunen-Loeve
transform of what the layer below hands over), g_s as its transpose, and GDN near the identity, so that training starts
at the rate and distortion of linear transform coding; the entropy model starts as plain estimators of each latent's
mean and scale (`entropy`). The statistics come from Gaussian images with the power spectrum of photographs: nothing
depends on the training data, and every rank of a distributed run starts alike.

Or a model starts from another one that was trained: from the networks of it that fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from jahp_pl.config import LossConfig
from jahp_pl.initialization.entropy import start_entropy_model
from jahp_pl.initialization.klt import pink_images, start_transforms
from jahp_pl.layers import GDN
from jahp_pl.model import CompressionModel

GAMMA = 1e-4
"""Initial gamma of GDN. Activations reach 50, and a larger gamma would bend g_a far off the inverse of g_s."""


def latent_scale(config: LossConfig) -> float:
    """Latents per unit of the orthonormal transform, for `initialise`.

    The quantization step is its inverse, and the best step shrinks with the square root of lambda; 3 was found at
    lambda 0.013. For MS-SSIM, whose lambda has another unit, it is 3. Of several lambdas, it is for the one in the
    middle.
    """
    return 3.0 * (config.lmbda_middle / 0.0130) ** 0.5 if config.distortion == "mse" else 3.0


@torch.no_grad()
def initialise(
    model: CompressionModel, scale: float = 3.0, seed: int = 0, start: Mapping[str, nn.Module] | None = None
) -> list[str]:
    """Overwrite the initial weights of `model`.

    Args:
        model: any rung, not trained yet. Layers not named above keep their random weights.
        scale: latents per unit of the orthonormal transform of images in [0, 1], see `latent_scale`.
        seed: of the synthetic images.
        start: see `take_networks`; the entropy model then begins at the latents of these transforms.

    Returns:
        Names of the networks that were taken over.
    """
    images = pink_images(64, 128, seed)
    start_transforms(model.g_a, model.g_s, images - 0.5, scale)
    for module in model.modules():
        if isinstance(module, GDN):
            module.gamma.copy_(torch.sqrt(GAMMA * torch.eye(len(module.beta)) + module.PEDESTAL))
    take_networks(model, start or {})
    level = None if model.gains is None else torch.full((len(images),), model.gains.middle)
    start_entropy_model(model, model.analyse(images, level).std((0, 2, 3)))
    return take_networks(model, start or {})  # again, those of the entropy model


def take_networks(model: CompressionModel, start: Mapping[str, nn.Module]) -> list[str]:
    """Copy into `model` those networks of `start` that have the same layers.

    A network is taken whole or not at all. The last layer of g_ep, or of h_s without context, has as many outputs as
    the density has parameters, so with another density that network begins anew.

    Args:
        model: to be written to.
        start: trained networks by their names in a model: g_a, ..., prior.

    Returns:
        Names of what was taken.
    """
    taken = []
    for name, network in model.named_children():
        wanted, weights = network.state_dict(), start[name].state_dict() if name in start else {}
        if {key: tensor.shape for key, tensor in wanted.items()} == {key: w.shape for key, w in weights.items()}:
            network.load_state_dict(weights)
            taken.append(name)
    return taken
