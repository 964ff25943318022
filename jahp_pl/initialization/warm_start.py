"""Initializes models so that they are usable transform coders before their first step. The paper starts at random.

Default initial weights shrink the signal layer by layer: the reconstruction starts at 6 dB, and a short run spends most
of its steps on getting past 20 dB. Here g_a starts as a tree of orthonormal transforms of 2x2 patches (each is the
Karhunen-Loeve transform of the previous layer's output), g_s as its transpose, and GDN near the identity. Training
therefore starts at the rate and distortion of linear transform coding. The entropy model starts as simple estimators of
each latent's mean and scale (`entropy`). The statistics come from Gaussian images with the power spectrum of
photographs, so nothing depends on the training data, and every rank of a distributed run starts with the same weights.

Alternatively, a model starts from those networks of another trained model that fit it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from jahp_pl.config import LossConfig
from jahp_pl.initialization.entropy import init_entropy_model
from jahp_pl.initialization.klt import init_transforms
from jahp_pl.initialization.textures import pink_images
from jahp_pl.layers import GDN
from jahp_pl.model import CompressionModel

REFERENCE_SCALE, REFERENCE_LMBDA = 3.0, 0.013
"""Latents per unit of the orthonormal transform at one lambda of a squared error, found by experiment."""
GAMMA = 1e-4
"""Initial gamma of GDN. Activations reach 50, so with a larger gamma g_s would be far from the inverse of g_a."""


def latent_scale(config: LossConfig) -> float:
    """Return the scale of the latents for `initialize`: latents per unit of the orthonormal transform.

    The scale is the inverse of the quantization step, and the best step is inversely proportional to the square root of
    lambda. For MS-SSIM, whose lambda has another unit, it is always `REFERENCE_SCALE`. A variable-rate model uses its
    middle lambda.
    """
    if config.distortion != "mse":
        return REFERENCE_SCALE
    return float(REFERENCE_SCALE * (config.lmbda_middle / REFERENCE_LMBDA) ** 0.5)


@torch.no_grad()
def initialize(
    model: CompressionModel, scale: float = REFERENCE_SCALE, seed: int = 0, start: Mapping[str, nn.Module] | None = None
) -> list[str]:
    """Overwrite the initial weights of `model`, as this module's docstring describes.

    Args:
        model: untrained model of any kind. Layers that the docstring does not mention keep their random weights.
        scale: latents per unit of the orthonormal transform of images in [0, 1], see `latent_scale`.
        seed: seed of the synthetic images.
        start: trained networks to copy, see `copy_networks`. If they include transforms, the entropy model is
            initialized for the latents of these transforms.

    Returns:
        Names of the networks that were copied.
    """
    images = pink_images(64, 128, seed)
    init_transforms(model.g_a, model.g_s, images - 0.5, scale)
    for module in model.modules():
        if isinstance(module, GDN):
            module.gamma.copy_(torch.sqrt(GAMMA * torch.eye(len(module.beta)) + module.PEDESTAL))
    copy_networks(model, start or {})
    level = None if model.gains is None else torch.full((len(images),), model.gains.middle)
    init_entropy_model(model, model.analyze(images, level).std((0, 2, 3)))
    return copy_networks(model, start or {})  # again, because the entropy model was overwritten


def copy_networks(model: CompressionModel, start: Mapping[str, nn.Module]) -> list[str]:
    """Copy the networks of `start` that have layers of the same shapes into `model`.

    A network is copied completely or not at all. The last layer of g_ep, or of h_s in a model without context, has as
    many outputs as the density has parameters, so this network keeps its initial weights if the density has another
    number of them.

    Args:
        model: model to write to.
        start: trained networks by their attribute names in a model: g_a, ..., prior.

    Returns:
        Names of the networks that were copied.
    """
    taken = []
    for name, network in model.named_children():
        own, weights = network.state_dict(), start[name].state_dict() if name in start else {}
        if {key: tensor.shape for key, tensor in own.items()} == {key: w.shape for key, w in weights.items()}:
            network.load_state_dict(weights)
            taken.append(name)
    return taken
