"""An image and its latents in torch, as `encoder` wants them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jahp_pl.codec.encoder import Quantized, Samples, to_integers
from jahp_pl.codec.entropy.range_coder import IntArray
from jahp_pl.codec.refinement import Latents, Refiner
from jahp_pl.codec.transforms.runner import PixelTransforms


class TorchAnalysed:
    """See `encoder.Analysed`.

    Args:
        pixels: the transforms.
        x: (3, H, W) uint8 on the CPU.
        refiner: searches for better latents than the nearest integers; None takes these.
    """

    def __init__(self, pixels: PixelTransforms, x: Tensor, refiner: Refiner | None) -> None:
        self.pixels, self.refiner = pixels, refiner
        self.image: Samples = x.numpy()
        self.y = pixels.analyse(x)  # (1, M, h, w), before it is scaled

    @property
    def num_rows(self) -> int:
        """Of latents."""
        return self.y.shape[-2]

    def quantize(self, level: float | None, rows: npt.NDArray[np.int64] | None = None) -> Quantized:
        """The nearest integers at a level of rate."""
        y = self.y if rows is None else self.y[..., torch.from_numpy(rows), :]
        return self._quantize(self.pixels.scale(y, level))

    def refine(self, level: float | None) -> Quantized:
        """What a search finds, if there is one."""
        if self.refiner is None:
            return self.quantize(level)
        y = self.pixels.scale(self.y, level)
        y_hat, z_hat = self._quantize(y)
        plain = Latents(y, torch.from_numpy(y_hat), None if z_hat is None else torch.from_numpy(z_hat))
        return Quantized(self.refiner(plain, level).numpy(), z_hat)

    def synthesise(self, y_hat: IntArray, level: float | None) -> Samples:
        """g_s."""
        _, height, width = self.image.shape
        shown: Samples = self.pixels.synthesise(torch.from_numpy(y_hat), height, width, level).numpy()
        return shown

    def _quantize(self, y: Tensor) -> Quantized:
        z_hat = None
        if self.pixels.has_hyperprior:
            z_hat = to_integers(self.pixels.hyper_analyse(y)[0].cpu().numpy())
        return Quantized(to_integers(y[0].cpu().numpy()), z_hat)
