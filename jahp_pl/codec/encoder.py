"""Encoding of one image: analysed once, then rounded, coded and measured at any rate level."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.bitstream import LATENT_MAX, LATENT_MIN, LEVEL_STEPS, Header, pack
from jahp_pl.codec.entropy.range_coder import Writer
from jahp_pl.codec.transforms.runner import TransformRunner
from jahp_pl.quality import psnr


class Encoded(NamedTuple):
    """A file and the latents in it."""

    data: bytes
    """The whole file."""
    y_hat: Tensor
    """(M, h, w) int32: latents in the file."""
    z_hat: Tensor | None
    """(N, ceil(h / 4), ceil(w / 4)) int32: hyper-latents in the file."""
    header_bytes: int
    """Bytes of the file that are not payload."""
    level: float | None = None
    """Rate level; None for a single-rate model."""


class Latents(NamedTuple):
    """Latents at one level, before and after quantization."""

    y: Tensor
    """(1, M, h, w) float32 on the model's device, scaled for rounding."""
    y_hat: Tensor
    """(M, h, w) int32 on the CPU: y, rounded."""
    z_hat: Tensor | None
    """(N, ceil(h / 4), ceil(w / 4)) int32 on the CPU; None on rungs without side information."""


ESTIMATE_BIAS = 1.05
"""Average factor by which `ImageEncoder.estimate_bytes` would otherwise be too high."""

Refine = Callable[[Latents, "float | None"], Tensor]
"""Searches for better integers y_hat, (M, h, w) int32, at a rate level."""
Write = Callable[[Writer, Tensor, "Tensor | None"], None]
"""Appends y_hat (M, h, w) int32 and z_hat (N, ...) int32 or None to a payload."""


class ImageEncoder:
    """Encodes one image at any number of rate levels.

    Args:
        transforms: transforms of the model.
        write: codes quantized latents.
        fingerprint: fingerprint of the codec.
        x: (3, H, W) uint8.
        icc: colour profile; empty for sRGB.
        refine: searches for better latents than the nearest integers; None uses the nearest integers.
    """

    def __init__(
        self,
        transforms: TransformRunner,
        write: Write,
        fingerprint: bytes,
        x: Tensor,
        icc: bytes,
        refine: Refine | None = None,
    ) -> None:
        self.transforms, self.write, self.fingerprint, self.x, self.icc = transforms, write, fingerprint, x, icc
        self.refine = refine
        self.y = transforms.analyse(x)  # (1, M, h, w), before it is scaled

    @property
    def num_pixels(self) -> int:
        """Number of pixels of the image."""
        return self.x.shape[-2] * self.x.shape[-1]

    def encode(self, level: int | None) -> Encoded:
        """Encode the image to a complete file.

        Args:
            level: rate level in `LEVEL_STEPS`; None for a single-rate model.
        """
        latents = self._quantize(self.y, level)
        y_hat, z_hat = latents.y_hat, latents.z_hat
        if self.refine is not None:
            y_hat = self.refine(latents, level_of(level))
        writer = Writer()
        self.write(writer, y_hat, z_hat)
        payload = writer.payload()
        height, width = self.x.shape[-2:]
        span = int(y_hat.min()), int(y_hat.max())
        header = Header(self.fingerprint, width, height, *span, self.icc, level, is_gray(self.x))
        data = pack(header, payload)
        return Encoded(data, y_hat, z_hat, len(data) - len(payload), level_of(level))

    def estimate_bytes(self, level: int) -> float:
        """Estimate the bytes of a file at a rate level from the energy of its latents.

        A latent is modelled as a Gaussian whose variance is the energy E of the 3 x 3 latents around it in its channel.
        Its bits are then 1/2 log2(1 + 2 pi e E): for large E the entropy of that Gaussian in unit bins, and almost
        nothing if all latents are 0. For the bundled models the estimate is 0 to 15 % too high, about equally at all
        levels of one image.
        """
        y_hat = torch.round(self.transforms.scale(self.y, level_of(level)))
        energy = F.avg_pool2d(y_hat.square(), 3, stride=1, padding=1, count_include_pad=False)
        bits = 0.5 * torch.log2(1 + 2 * math.pi * math.e * energy).sum()
        return float(bits) / 8 / ESTIMATE_BIAS

    def psnr(self, file: Encoded) -> float:
        """Compute the PSNR in dB of the image that this file decodes to."""
        return self._psnr(file.y_hat, file.level)

    def plain_psnr(self, level: int) -> float:
        """Compute the PSNR in dB at a level with plain rounding, without a search."""
        return self._psnr(self._quantize(self.y, level).y_hat, level_of(level))

    def _psnr(self, y_hat: Tensor, level: float | None) -> float:
        height, width = self.x.shape[-2:]
        shown = self.transforms.synthesise(y_hat, height, width, level)
        return float(psnr(self.x.cpu(), to_gray(shown) if is_gray(self.x) else shown))

    def _quantize(self, y: Tensor, level: int | None) -> Latents:
        y = self.transforms.scale(y, level_of(level))
        z_hat = to_integers(self.transforms.hyper_analyse(y)) if self.transforms.has_hyperprior else None
        return Latents(y, to_integers(y), z_hat)


def level_of(steps: int | None) -> float | None:
    """Convert the level in a header to one from 0 to the number of levels minus 1; None for a single-rate model."""
    return None if steps is None else steps / LEVEL_STEPS


def is_gray(image: Tensor) -> bool:
    """Check whether an image (3, H, W) has R = G = B everywhere."""
    return bool((image[0] == image[1]).all()) and bool((image[0] == image[2]).all())


def to_gray(image: Tensor) -> Tensor:
    """Put the BT.601 luma into all channels: (3, H, W) uint8 -> (3, H, W) uint8, in integer arithmetic."""
    red, green, blue = image.int()
    luma = (299 * red + 587 * green + 114 * blue + 500) // 1000
    gray: Tensor = luma.to(torch.uint8).expand(3, -1, -1).contiguous()
    return gray


def to_integers(latents: Tensor) -> Tensor:
    """Round latents (1, C, h, w) to the nearest integers (C, h, w), int32 on the CPU."""
    rounded = torch.round(latents[0]).cpu()
    if not bool(torch.isfinite(rounded).all()):
        raise ValueError("the latents are not finite; the weights are damaged or diverged; use an earlier checkpoint")
    if float(rounded.abs().max()) > LATENT_MAX:
        raise ValueError(f"latents exceed {LATENT_MIN} to {LATENT_MAX}; the model diverged; use an earlier checkpoint")
    return rounded.to(torch.int32)
