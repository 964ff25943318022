"""Holds an image and its latents before they are quantized, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.codec.arrays import Float32Array, IntArray, Samples
from jahp_pl.codec.encoder import to_integers
from jahp_pl.codec.latents import RealLatents, SearchLength
from jahp_pl.codec.search.refinement import Refiner
from jahp_pl.codec.transforms.runner import TransformRunner


class TorchAnalyzedImage:
    """Implementation of `encoder.AnalyzedImage` in torch.

    Args:
        transforms: transforms of the model.
        x: (3, H, W) uint8 on the CPU.
        refiner: searches for better latents than the nearest integers; None for plain rounding.
    """

    def __init__(self, transforms: TransformRunner, x: Tensor, refiner: Refiner | None) -> None:
        self.transforms, self.refiner = transforms, refiner
        self.image: Samples = x.numpy()
        self.y = transforms.analyze(x)  # (1, M, h, w), before the gains

    def scaled_latents(self, level: float | None) -> Float32Array:
        """Return the latents (M, h, w), scaled by the gains of a rate level, before rounding."""
        latents: Float32Array = self.transforms.scale(self.y, level)[0].cpu().numpy()
        return latents

    def refine(self, level: float | None, search: SearchLength = "full") -> RealLatents:
        """Return the refiner's latents at a rate level; those of `scaled_latents` if there is no refiner."""
        y = self.transforms.scale(self.y, level)
        z_hat = None
        if self.transforms.has_hyperprior:
            z_hat = to_integers(self.transforms.hyper_analyze(y)[0].cpu().numpy())
        if self.refiner is None or search == "none":
            return RealLatents(y[0].cpu().numpy(), z_hat)
        refiner = self.refiner.brief() if search == "brief" else self.refiner
        found = refiner(y, None if z_hat is None else torch.from_numpy(z_hat), level)
        return RealLatents(found.numpy(), z_hat)

    def synthesize(self, y_hat: IntArray, level: float | None) -> Samples:
        """Reconstruct the image (3, H, W) from latents (M, h, w), before `to_gray`."""
        _, height, width = self.image.shape
        image: Samples = self.transforms.synthesize(torch.from_numpy(y_hat), height, width, level).numpy()
        return image
