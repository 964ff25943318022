"""One image on its way into a file: analysed once, then rounded, coded and judged at any level of rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.bitstream import LATENT_MAX, LATENT_MIN, LEVEL_STEPS, Header, pack
from jahp_pl.codec.entropy.range_coder import Writer
from jahp_pl.codec.transforms.runner import PixelTransforms
from jahp_pl.quality import psnr


class Encoded(NamedTuple):
    """A file and what went into it."""

    data: bytes
    """The whole file."""
    y_hat: Tensor
    """(M, h, w) int32: the latents in it."""
    z_hat: Tensor | None
    """(N, ceil(h / 4), ceil(w / 4)) int32: the hyper-latents in it."""
    header_bytes: int
    """Bytes of the file that are not payload."""
    level: float | None = None
    """Level of rate; None for a model of one rate."""


class Latents(NamedTuple):
    """Latents of a level, before and after they are quantized."""

    y: Tensor
    """(1, M, h, w) float32 on the model's device, as they would be rounded."""
    y_hat: Tensor
    """(M, h, w) int32 on the CPU: y, rounded."""
    z_hat: Tensor | None
    """(N, ceil(h / 4), ceil(w / 4)) int32 on the CPU; None on rungs without side information."""


ESTIMATE_BIAS = 1.05
"""How much `ImageEncoder.estimate_bytes` would be too high on average."""

Refine = Callable[[Latents, "float | None"], Tensor]
"""A search for better integers y_hat, (M, h, w) int32, at a level of rate."""
Write = Callable[[Writer, Tensor, "Tensor | None"], None]
"""Appends y_hat (M, h, w) int32 and z_hat (N, ...) int32 or None to a payload."""


class ImageEncoder:
    """An image and its latents, which are quantized at one level after the other.

    Args:
        pixels: the transforms.
        write: codes quantized latents.
        fingerprint: of the codec.
        x: (3, H, W) uint8.
        icc: colour profile; empty for sRGB.
        refine: searches for better latents than the nearest integers; None takes these.
    """

    def __init__(
        self,
        pixels: PixelTransforms,
        write: Write,
        fingerprint: bytes,
        x: Tensor,
        icc: bytes,
        refine: Refine | None = None,
    ) -> None:
        self.pixels, self.write, self.fingerprint, self.x, self.icc = pixels, write, fingerprint, x, icc
        self.refine = refine
        self.y = pixels.analyse(x)  # (1, M, h, w), before it is scaled

    @property
    def num_pixels(self) -> int:
        """Of the image."""
        return self.x.shape[-2] * self.x.shape[-1]

    def encode(self, level: int | None) -> Encoded:
        """A whole file.

        Args:
            level: of rate, in `LEVEL_STEPS`; None for a model of one rate.
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
        """Bytes of a file at a level of rate, estimated from the energy of its latents.

        A latent is taken for a Gaussian whose variance is the energy of the latents around it, E over 3 x 3 of its
        channel. Its bits are then 1/2 log2(1 + 2 pi e E): the entropy of that Gaussian in unit bins where E is large,
        and next to nothing where all latents are 0. For the bundled models the estimate is 0 to 15 % too high, about
        equally at all levels of one image.
        """
        y_hat = torch.round(self.pixels.scale(self.y, level_of(level)))
        energy = F.avg_pool2d(y_hat.square(), 3, stride=1, padding=1, count_include_pad=False)
        bits = 0.5 * torch.log2(1 + 2 * math.pi * math.e * energy).sum()
        return float(bits) / 8 / ESTIMATE_BIAS

    def psnr(self, file: Encoded) -> float:
        """dB of what a file of this image shows."""
        return self._psnr(file.y_hat, file.level)

    def plain_psnr(self, level: int) -> float:
        """dB of what a file of this level would show, without a search."""
        return self._psnr(self._quantize(self.y, level).y_hat, level_of(level))

    def _psnr(self, y_hat: Tensor, level: float | None) -> float:
        height, width = self.x.shape[-2:]
        shown = self.pixels.synthesise(y_hat, height, width, level)
        return float(psnr(self.x.cpu(), to_gray(shown) if is_gray(self.x) else shown))

    def _quantize(self, y: Tensor, level: int | None) -> Latents:
        y = self.pixels.scale(y, level_of(level))
        z_hat = to_integers(self.pixels.hyper_analyse(y)) if self.pixels.has_hyperprior else None
        return Latents(y, to_integers(y), z_hat)


def level_of(steps: int | None) -> float | None:
    """The level that a header names, from 0 to the number of levels less 1; None for a model of one rate."""
    return None if steps is None else steps / LEVEL_STEPS


def is_gray(image: Tensor) -> bool:
    """Whether (3, H, W) has R = G = B everywhere."""
    return bool((image[0] == image[1]).all()) and bool((image[0] == image[2]).all())


def to_gray(image: Tensor) -> Tensor:
    """The luma of BT.601 in all channels: (3, H, W) uint8 -> (3, H, W) uint8, in integers."""
    red, green, blue = image.int()
    luma = (299 * red + 587 * green + 114 * blue + 500) // 1000
    gray: Tensor = luma.to(torch.uint8).expand(3, -1, -1).contiguous()
    return gray


def to_integers(latents: Tensor) -> Tensor:
    """(1, C, h, w) -> the nearest integers, (C, h, w) int32 on the CPU."""
    rounded = torch.round(latents[0]).cpu()
    if not bool(torch.isfinite(rounded).all()):
        raise ValueError("the model gives latents that are not finite; its weights are damaged or have diverged")
    if float(rounded.abs().max()) > LATENT_MAX:
        raise ValueError(f"latents beyond {LATENT_MIN} to {LATENT_MAX}; the model has diverged")
    return rounded.to(torch.int32)
