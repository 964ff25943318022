"""The hyper-transforms h_a and h_s: side information z about the latents y (paper, section 2 and table 1).

The scale hyperprior describes only the magnitude of each latent (Balle et al. 2018): h_a reads |y| and h_s returns one
number per latent. The other models describe mean and scale with signed features (paper, section 3).

The rest of the code knows a pair of networks only through its entry in `HYPER_TRANSFORMS`; `register_hyper_transform`
adds one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from jahp_pl.config import add_part, find_part
from jahp_pl.strides import HYPER_REACH
from jahp_pl.transforms import downsample, upsample


class HyperAnalysis(nn.Sequential):
    """h_a: y (B, M, h, w) -> z (B, N, ceil(h / 4), ceil(w / 4)).

    Args:
        num_filters: N, channels of the hidden layers and of z.
        num_latents: M.
        magnitudes: read |y| through ReLUs (`scale_hyperprior`) instead of y through LeakyReLUs.
    """

    def __init__(self, num_filters: int, num_latents: int, magnitudes: bool) -> None:
        N, M = num_filters, num_latents
        super().__init__(
            nn.Conv2d(M, N, 3, padding=1), _activation(magnitudes), downsample(N, N), _activation(magnitudes),
            downsample(N, N),
        )  # fmt: skip
        self.magnitudes = magnitudes

    def forward(self, y: Tensor) -> Tensor:
        """Apply h_a; shapes as in the class."""
        z = y.abs() if self.magnitudes else y
        for layer in self:
            z = layer(z)
        return z


class HyperSynthesis(nn.Sequential):
    """h_s: z_hat (B, N, ceil(h / 4), ceil(w / 4)) -> features psi (B, `num_features`, >= h, >= w).

    Crop the result to (h, w): z covers up to three more rows and columns of latents than y has.

    Args:
        num_filters: N.
        num_latents: M.
        num_features: 2M for the joint model; the number of entropy parameters if psi alone gives these.
        magnitudes: whether to use the layers of `scale_hyperprior`.
    """

    def __init__(self, num_filters: int, num_latents: int, num_features: int, magnitudes: bool) -> None:
        N, M = num_filters, num_latents
        widths = (N, N) if magnitudes else (M, M * 3 // 2)
        super().__init__(
            upsample(N, widths[0]), _activation(magnitudes), upsample(*widths), _activation(magnitudes),
            nn.Conv2d(widths[1], num_features, 3, padding=1),
        )  # fmt: skip


class HyperTransforms(NamedTuple):
    """A pair of networks, built for N filters and M latents; `magnitudes` is True for `scale_hyperprior`."""

    analysis: Callable[[int, int, bool], nn.Module]
    """(N, M, magnitudes) -> h_a: (B, M, h, w) -> (B, N, ceil(h / 4), ceil(w / 4))."""
    synthesis: Callable[[int, int, int, bool], nn.Sequential]
    """(N, M, F, magnitudes) -> h_s: (B, N, hz, wz) -> (B, F, 4 hz, 4 wz), of layers that `exact_layers` accepts."""
    reach: int
    """Receptive field radius in latents: the largest distance at which an input of h_a or h_s changes an output."""


HYPER_TRANSFORMS: dict[str, HyperTransforms] = {
    "conv": HyperTransforms(HyperAnalysis, HyperSynthesis, reach=HYPER_REACH)
}
"""Use `hyper_transforms_of` to look one up."""


def register_hyper_transform(name: str, transforms: HyperTransforms) -> None:
    """Add a pair of networks, to be selected by `model.hyper_transform=NAME`; it replaces an earlier one of that name.

    Args:
        name: a new name, a Python identifier.
        transforms: h_a and h_s.

    Raises:
        ConfigError: if the name is one of the package's own, or not an identifier.
    """
    add_part("hyper_transform", name)
    HYPER_TRANSFORMS[name] = transforms


def hyper_transforms_of(name: str) -> HyperTransforms:
    """Return the pair of networks registered under a name.

    Raises:
        ConfigError: if it is not registered in this process.
    """
    return find_part("hyper_transform", name, HYPER_TRANSFORMS)


def crop_to(features: Tensor, like: Tensor) -> Tensor:
    """Crop `features` (B, F, >= h, >= w) to the height and width of `like` (B, M, h, w)."""
    return features[..., : like.shape[-2], : like.shape[-1]]


def _activation(magnitudes: bool) -> nn.Module:
    return nn.ReLU(inplace=True) if magnitudes else nn.LeakyReLU(0.01, inplace=True)
