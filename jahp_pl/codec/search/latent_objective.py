"""Computes R + lambda * D of one image as a function of its latents, which an encoder's search minimizes.

The decoder and z_hat are fixed, and only the latents get gradients. R is the rate of y under p(y | z_hat, context),
where the context is y itself. D is the distortion of x_hat = g_s(y), clipped to [0, 1] as in a file. Both are functions
of any real y; between the integers, R is -log2 of the density of the noisy latent. All results are sums in bits, not
bits per pixel, so that those of parts of an image can be added.

D may mix squared errors with `StructuralDistortion`. A search for squared errors alone gains PSNR partly at
the expense of structure: it drops faint texture, which costs many bits and adds little to the squared error.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from jahp_pl.bfloat16 import prefers_bfloat16
from jahp_pl.codec.search.structural_distortion import StructuralDistortion
from jahp_pl.codec.search.subpixel import with_subpixel_end
from jahp_pl.codec.transforms.runner import TransformRunner
from jahp_pl.codec.transforms.tiles import halo_of
from jahp_pl.distributions import density_of
from jahp_pl.entropy_model import BITS_PER_NAT, ConditionalDensity
from jahp_pl.hyperprior import hyper_transforms_of
from jahp_pl.model import CompressionModel
from jahp_pl.strides import HYPER_STRIDE, STRIDE

STRUCTURE_PER_SQUARE = 1280
"""Weight of 1 - MS-SSIM relative to 255^2 * MSE: the ratio of the published lambdas for the two at equal rates, see
`config.LossConfig.lmbda`."""
MASS_MIN = 2.0**-24
"""Smallest probability of a latent, see `entropy_model.LOG_LIKELIHOOD_MIN`."""


class Region(NamedTuple):
    """A rectangle of latents: rows [top, bottom) and columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, latents: Tensor) -> Tensor:
        """Return the part of (..., h, w) inside the rectangle, as a view."""
        return latents[..., self.top : self.bottom, self.left : self.right]

    def pixels(self, image: Tensor) -> Tensor:
        """Return the pixels of an image (..., H, W) that belong to the rectangle, as a view."""
        return Region(*(STRIDE * edge for edge in self)).of(image)

    def relative_to(self, outer: Region) -> Region:
        """Express the same rectangle relative to the corner of another one."""
        return Region(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)


class SearchedImage(NamedTuple):
    """An image whose latents are searched, and the decoder's other inputs, which stay fixed."""

    image: Tensor
    """(3, H, W) uint8 original."""
    z_hat: Tensor | None
    """(1, N, ceil(h / 4), ceil(w / 4)) hyper-latents, which stay fixed; None without side information."""
    scale: Tensor | None = None
    """(M,) factors of the latents before g_s; None for 1."""


class SearchLoss(NamedTuple):
    """The distortion measure of a search, and its weight."""

    distortion: Literal["mse", "ms_ssim"]
    """That of training: mse is mixed with structure, ms_ssim is structure alone."""
    lmbda: float
    structure_share: float
    """Share of the structural distortion in a mixture with mse, from 0 to 1."""

    def weights(self, num_pixels: int) -> tuple[float, float]:
        """Return the bits that a mean squared error of 1 (pixels in [0, 1]) and a structural distortion of 1 cost."""
        weight = self.lmbda * num_pixels
        if self.distortion == "ms_ssim":
            return 0.0, weight
        return (1 - self.structure_share) * weight * 255**2, self.structure_share * weight * STRUCTURE_PER_SQUARE


class LatentObjective:
    """R + lambda * D of one rectangle of an image as a function of the latents in and around it.

    Args:
        model: trained model, in float32, whose weights need no gradient; its device is used.
        searched: the image and its fixed parts.
        loss: distortion measure and lambda.
        seen: rectangle of latents that the function receives.
        counted: rectangle within `seen` whose bits and pixels count; `seen` must contain all latents that these depend
            on. None for all of `seen`.
    """

    def __init__(
        self,
        model: CompressionModel,
        searched: SearchedImage,
        loss: SearchLoss,
        seen: Region,
        counted: Region | None = None,
    ) -> None:
        counted = seen if counted is None else counted
        image, z_hat, scale = searched
        device = next(model.parameters()).device
        self._model, self._psi = model, _psi(model, z_hat, seen)
        self._g_s = with_subpixel_end(model.g_s)
        self._counted = counted.relative_to(seen)
        self._x = (counted.pixels(image).to(device).float() / 255)[None]
        self._per_square, self._per_structure = loss.weights(self._x.shape[-2] * self._x.shape[-1])
        self._structure = StructuralDistortion(self._x) if self._per_structure else None
        self._scale = None if scale is None else scale.to(device).view(-1, 1, 1)
        self._device = device

    def __call__(self, y: Tensor) -> Tensor:
        """Compute the differentiable objective at any real y (1, M, h, w), in bits.

        Convolutions run in bfloat16 if that is faster.
        """
        with torch.autocast(self._device.type, torch.bfloat16, enabled=prefers_bfloat16(self._device)):
            bits = self._bits(y)
            x_hat = self._synthesize(y)
        return bits + self._distortion(x_hat)

    @torch.no_grad()
    def score(self, y_hat: Tensor, transforms: TransformRunner) -> float:
        """Compute the objective at integers y_hat (1, M, h, w), in bits, in float32.

        D is that of the 8-bit image that a decoder returns, so `transforms` runs g_s as a decoder does.
        """
        with torch.autocast(y_hat.device.type, enabled=False):
            if self._model.config.entropy_model == "factorized":
                assert self._model.prior is not None
                bits = self._model.prior.bits(y_hat)
            else:
                parameters = self._model.density.parameters(self._raw(y_hat))
                bits = self._model.density.bits(y_hat, parameters)
            rate = self._counted.of(bits).double().sum()
            return float(rate + self._distortion(self._decoded(y_hat, transforms)).double())

    def _bits(self, y: Tensor) -> Tensor:
        if self._model.config.entropy_model == "factorized":
            assert self._model.prior is not None
            return self._counted.of(self._model.prior.bits(y)).sum()
        raw = self._counted.of(self._raw(y)).float()
        return mixture_bits(self._model.density, self._counted.of(y), raw).sum()

    def _raw(self, y: Tensor) -> Tensor:
        """Compute the raw entropy parameters of the latents `seen`."""
        if self._model.g_cm is None or self._model.g_ep is None:
            assert self._psi is not None
            return self._psi
        g_cm = self._model.g_cm
        rows, reach = g_cm.kernel_size[0] // 2 + 1, g_cm.kernel_size[0] // 2  # the rows below are masked
        kernel = (g_cm.weight * g_cm.mask)[:, :, :rows]
        phi = F.conv2d(F.pad(y, (reach, reach, reach, 0)), kernel, g_cm.bias)
        features = phi if self._psi is None else torch.cat([self._psi.to(phi.dtype), phi], dim=1)
        raw: Tensor = self._model.g_ep(features)
        return raw

    def _synthesize(self, y: Tensor) -> Tensor:
        # A clone, not `contiguous`: a batch of one may count as channels_last with strides for which convolutions
        # return maps in the other memory format, and everything after them takes a slower path.
        x_hat = self._g_s(self._scaled(y).clone(memory_format=torch.channels_last))
        return self._counted_pixels(x_hat).float().clamp(0, 1)

    def _decoded(self, y_hat: Tensor, transforms: TransformRunner) -> Tensor:
        height, width = (STRIDE * side for side in y_hat.shape[-2:])
        image = transforms.synthesize(self._scaled(y_hat)[0], height, width)[None]
        return self._counted_pixels(image).to(self._device).float() / 255

    def _scaled(self, y: Tensor) -> Tensor:
        return y if self._scale is None else y * self._scale

    def _counted_pixels(self, image: Tensor) -> Tensor:
        return self._counted.pixels(image)[..., : self._x.shape[-2], : self._x.shape[-1]]

    def _distortion(self, x_hat: Tensor) -> Tensor:
        """Compute lambda * D in bits."""
        distortion = self._per_square * (x_hat - self._x).square().mean()
        return distortion if self._structure is None else distortion + self._per_structure * self._structure(x_hat)


@torch.no_grad()
def _psi(model: CompressionModel, z_hat: Tensor | None, seen: Region) -> Tensor | None:
    """Compute h_s for a rectangle of latents: (1, N, ...) hyper-latents -> (1, F, h, w)."""
    if model.h_s is None or z_hat is None:
        return None
    stride = HYPER_STRIDE
    around = halo_of(hyper_transforms_of(model.config.hyper_transform).reach, stride) + 1
    top, left = (max(edge // stride - around, 0) for edge in (seen.top, seen.left))
    bottom, right = (-(-edge // stride) + around for edge in (seen.bottom, seen.right))
    part = z_hat[..., top:bottom, left:right].to(next(model.parameters()).device).float()
    offset = Region(stride * top, 0, stride * left, 0)
    psi: Tensor = seen.relative_to(offset).of(model.h_s(part))
    return psi


def mixture_bits(density: ConditionalDensity, y: Tensor, raw: Tensor) -> Tensor:
    """Compute -log2 P of each latent like `ConditionalDensity.bits`, with a cheaper gradient for the Gaussian.

    Args:
        density: density of the model.
        y: (B, M, h, w).
        raw: (B, blocks * K * M, h, w) float32, see `ConditionalDensity`.
    """
    if density.family != "gaussian":  # autograd takes four times as long for the Gaussian as for the others
        return density.bits(y, density.parameters(raw))
    batch, _, height, width = raw.shape
    blocks = raw.view(batch, density.num_blocks, density.num_components, -1, height, width).unbind(1)
    mu = blocks[1] if density.has_means else torch.zeros_like(blocks[0])
    logits = blocks[-1] if density.num_components > 1 else torch.zeros_like(blocks[0])
    bits: Tensor = _GaussianBits.apply(y, blocks[0], mu, logits)  # type: ignore[no-untyped-call]
    return bits


class _GaussianBits(torch.autograd.Function):
    """-log2 P with P = sum_k w_k (Q(a_k) - Q(b_k)), a, b = (|y - mu| -+ 1/2) / sigma, Q(t) = erfc(t / sqrt 2) / 2.

    Works in linear space: below 2^-24 the value is clamped, as in the model, and the slope continues while float32 can
    represent P. With phi the standard normal density and s the sign of y - mu:

        dP_k / dy = s (phi(b) - phi(a)) / sigma,   dP_k / dsigma = (a phi(a) - b phi(b)) / sigma,
        dP / dlogit_k = w_k (P_k - P).
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, scales: Tensor, mu: Tensor, logits: Tensor) -> Tensor:
        scale_min = density_of("gaussian").scale_min
        inverse_sigma = scales.clamp(min=scale_min).reciprocal()
        weights = torch.softmax(logits, dim=1)
        offset = y.unsqueeze(1) - mu  # (B, K, M, h, w)
        # a_k and b_k, then Q(a_k) - Q(b_k), then P
        low, high = (offset.abs() - 0.5).mul_(inverse_sigma), (offset.abs() + 0.5).mul_(inverse_sigma)
        masses = torch.erfc(low * math.sqrt(0.5)).sub_(torch.erfc(high * math.sqrt(0.5))).mul_(0.5)
        mass = (weights * masses).sum(1, keepdim=True)
        if any(ctx.needs_input_grad):
            slope = -BITS_PER_NAT / mass.clamp(min=1e-30)  # d bits / dP
            at_low, at_high = (torch.exp(-0.5 * t.square()).mul_(1 / math.sqrt(2 * math.pi)) for t in (low, high))
            pull = weights * inverse_sigma * slope
            # Gradients of the bits with respect to y, sigma_k and logit_k
            grad_y = (at_high - at_low).mul_(pull).mul_(offset.sign())
            grad_scale = (low * at_low - high * at_high).mul_(pull)
            grad_scale *= (scales >= scale_min) | (grad_scale < 0)  # see `ops.lower_bound`
            grad_logits = (masses - mass).mul_(weights).mul_(slope)
            ctx.save_for_backward(grad_y, grad_scale, grad_logits)
        return -torch.log2(mass.squeeze(1).clamp(min=MASS_MIN))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grad_y, grad_scale, grad_logits = (gradient * grad.unsqueeze(1) for gradient in ctx.saved_tensors)
        return grad_y.sum(1), grad_scale, -grad_y, grad_logits
