"""Initial weights that make the model a usable transform coder before its first step.

Default initial weights shrink the signal layer by layer: the reconstruction starts at 6 dB, and most of a short run
goes into leaving 20 dB. Here g_a starts as a tree of orthonormal transforms of 2x2 patches (each the Karhunen-Loeve
transform of what the layer below hands over), g_s as its transpose, and GDN near the identity, so that training starts
at the rate and distortion of linear transform coding. The statistics come from Gaussian images with the power spectrum
of photographs: nothing depends on the training data, and every rank of a distributed run starts alike.

Or a model starts from another one that was trained: from the networks of it that fit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.config import LossConfig
from jahp_pl.entropy_model import FactorizedDensity
from jahp_pl.hyperprior import HyperAnalysis, HyperSynthesis
from jahp_pl.layers import GDN
from jahp_pl.model import CompressionModel

SPECTRAL_EXPONENT = 1.4
"""Amplitudes fall as 1 / f^1.4: slightly faster than the 1 / f of scenes, as photographs are blurred by optics."""
CONTRASTS = (0.35, 0.0875, 0.042)
"""Standard deviations of the luma and the two opponent colours (orthonormal axes), images in [0, 1]."""
OPPONENT_AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))
"""Gray, red against blue, green against magenta; normalised on use."""
GAMMA = 1e-4
"""Initial gamma of GDN. Activations reach 50, and a larger gamma would bend g_a far off the inverse of g_s."""
HYPER_GAIN = 3.0
"""Hyper-latents per unit of local energy. Training makes cheap what does not pay."""
MEAN_GAIN = 0.5
"""Hyper-latents per unit of a latent's local mean: rounded to steps of two latents, small beside their spread."""
SPLINE = (0.125, 0.5, 0.75, 0.5, 0.125)
"""Kernel that doubles the resolution smoothly; the taps of either phase add up to one."""
SIGNS = torch.tensor([1.0, -1.0])
"""Of the two units that carry a signed value through an activation."""


def latent_scale(config: LossConfig) -> float:
    """Latents per unit of the orthonormal transform, for `initialise`.

    The quantization step is its inverse, and the best step shrinks with the square root of lambda; 3 was found at
    lambda 0.013. For MS-SSIM, whose lambda has another unit, it is 3.
    """
    return 3.0 * (config.lmbda / 0.0130) ** 0.5 if config.distortion == "mse" else 3.0


@torch.no_grad()
def initialise(
    model: CompressionModel, scale: float = 3.0, seed: int = 0, start: CompressionModel | None = None
) -> list[str]:
    """Overwrite the initial weights of `model`.

    Args:
        model: any rung, not trained yet. Layers not named above keep their random weights.
        scale: latents per unit of the orthonormal transform of images in [0, 1], see `latent_scale`.
        seed: of the synthetic images.
        start: what fits of it is taken over; the entropy model then begins at the latents of these transforms.

    Returns:
        Names of the networks that were taken over.
    """
    images = pink_images(64, 128, seed)
    _start_transforms(model.g_a, model.g_s, images - 0.5, scale)
    for module in model.modules():
        if isinstance(module, GDN):
            module.gamma.copy_(torch.sqrt(GAMMA * torch.eye(len(module.beta)) + module.PEDESTAL))
    if start is not None:
        take_networks(model, start)
    _start_entropy_model(model, model.analyse(images).std((0, 2, 3)))
    return take_networks(model, start) if start is not None else []  # again, those of the entropy model


def take_networks(model: CompressionModel, start: CompressionModel) -> list[str]:
    """Copy into `model` those networks of `start` that have the same layers: g_a, ..., prior.

    A network is taken whole or not at all. The last layer of g_ep, or of h_s without context, has as many outputs as
    the density has parameters, so with another density that network begins anew.

    Returns:
        Names of what was taken.
    """
    taken = []
    for name, network in model.named_children():
        wanted, found = network.state_dict(), getattr(start, name, None)
        weights = found.state_dict() if found is not None else {}
        if {key: tensor.shape for key, tensor in wanted.items()} == {key: w.shape for key, w in weights.items()}:
            network.load_state_dict(weights)
            taken.append(name)
    return taken


def pink_images(num_images: int, size: int, seed: int) -> Tensor:
    """Gaussian textures with the spectrum and the colours of photographs: (B, 3, size, size), mean 0.5, not clipped."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.fft.fftfreq(2 * size)[:, None], torch.fft.rfftfreq(2 * size)[None]
    # Twice the size, of which a quarter is kept: opposite borders of a periodic texture would match.
    amplitudes = (rows.square() + columns.square() + (0.5 / size) ** 2) ** (-SPECTRAL_EXPONENT / 2)
    white = torch.randn(num_images, 3, 2 * size, 2 * size, generator=generator)
    texture = torch.fft.irfft2(torch.fft.rfft2(white) * amplitudes)[..., :size, :size]
    axes = F.normalize(torch.tensor(OPPONENT_AXES), dim=1) * torch.tensor(CONTRASTS)[:, None]
    return 0.5 + torch.einsum("oc,bohw->bchw", axes, texture / texture.std())


def _start_transforms(g_a: nn.Sequential, g_s: nn.Sequential, x: Tensor, scale: float) -> None:
    # All of `scale` goes into the layers at the pixels. The weights inside are then of order one, and Adam's steps,
    # which are equal for all weights, do no harm; put at the latents instead, a learning rate of 1e-3 ruins the start.
    downs = [layer for layer in g_a if isinstance(layer, nn.Conv2d)]
    ups = [layer for layer in g_s if isinstance(layer, nn.ConvTranspose2d)]
    for level, (down, up) in enumerate(zip(downs, reversed(ups), strict=True)):
        gain = scale if level == 0 else 1.0
        num_in = x.shape[1]
        patches = F.pixel_unshuffle(x, 2)  # (B, 4 C, h, w): the taps 2 and 3 of a 5x5 kernel with stride 2, padding 2
        rows = patches.transpose(0, 1).flatten(1).double()
        eigenvectors = torch.linalg.eigh(rows @ rows.T).eigenvectors.flip(1)  # columns, largest variance first
        basis = eigenvectors[:, : down.out_channels].T.float()
        num_out = len(basis)
        kernels = basis.view(num_out, num_in, 2, 2)

        # Filters beyond the basis stay random, and what follows ignores them until training finds a use.
        down.weight[:num_out] = 0
        down.weight[:, num_in:] = 0
        down.weight[:num_out, :num_in, 2:4, 2:4] = gain * kernels
        assert down.bias is not None
        assert up.bias is not None
        down.bias.zero_()
        up.bias.zero_()
        up.weight[:, :num_in] = 0
        up.weight[num_out:] = 0
        up.weight[:num_out, :num_in, 2:4, 2:4] = kernels / gain
        up.weight[:num_out, num_in:].normal_(0, 0.02 / num_in**0.5)
        if level == 0:  # gray is zero inside
            down.bias[:num_out] = -0.5 * gain * kernels.sum((1, 2, 3))
            up.bias.fill_(0.5)
        x = F.conv2d(patches, basis[:, :, None, None])


def _start_entropy_model(model: CompressionModel, std: Tensor) -> None:
    """Let the density of each latent begin at its mean 0 and its standard deviation `std` (M,)."""
    # With a context, energies are known from the neighbours, and what h_s says is one voice of two: random starts did
    # better there, by 1 to 3 % of the loss after 1200 steps.
    is_alone = model.g_ep is None
    spread = std.repeat(model.config.num_components)
    head = model.g_ep if model.g_ep is not None else model.h_s
    if head is not None:
        last = head[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        num_blocks = last.out_channels // len(spread)
        sigma, located = slice(0, len(spread)), slice(0, min(num_blocks, 2) * len(spread))  # sigmas; sigmas and means
        last.weight[located] *= spread.clamp(0.3, 3.0).repeat(min(num_blocks, 2))[:, None, None, None]
        last.bias[located] = 0
        last.bias[sigma] = spread.clamp(min=0.3)
        if is_alone and num_blocks > 1:  # random weights say noise of means; further components need it to differ
            last.weight[len(spread) : len(spread) + len(std)] = 0
    hyper_std = torch.ones(model.config.num_filters)
    if model.h_a is not None and model.h_s is not None and is_alone:
        channels = _start_energies(model.h_a, std)
        if model.density.has_means:
            hyper_std = _start_means(model.h_a, model.h_s, channels, std, len(spread))
    if model.prior is not None:
        _start_prior(model.prior, hyper_std if model.h_a is not None else std)


def _start_energies(h_a: HyperAnalysis, std: Tensor) -> list[int]:
    """Let hyper-latents begin as local energies: means of |y| / std over some 12 x 12 latents of one channel each.

    How large the latents are around a place is what pays first. From random weights a short run finds it late where
    h_a sees signed latents: their magnitude then takes two units, of y and of -y, behind LeakyReLUs.

    Returns:
        Channels of y that are heard, those that vary most, in the order of their units.
    """
    first, second, last = (layer for layer in h_a if isinstance(layer, nn.Conv2d))
    units = 1 if h_a.magnitudes else 2
    assert first.bias is not None
    first.weight.mul_(0.1)
    first.bias.zero_()
    second.weight.mul_(0.3)
    last.weight.mul_(0.3)
    channels: list[int] = std.argsort(descending=True, stable=True)[: first.out_channels // units].tolist()
    for unit, channel in enumerate(channels):
        pair = slice(units * unit, units * (unit + 1))
        first.weight[pair, channel, 1, 1] = SIGNS[:units] / std[channel].clamp(min=0.3)
        second.weight[unit, pair] = 0
        second.weight[unit, pair, 1:4, 1:4] = 1 / 9
        last.weight[unit, unit, 1:4, 1:4] += HYPER_GAIN / 9
    return channels


def _start_means(h_a: HyperAnalysis, h_s: HyperSynthesis, channels: list[int], std: Tensor, means: int) -> Tensor:
    """Let the hyper-latents that carry no energy begin as local means of y, which h_s interpolates to means mu.

    The lowest frequencies vary slowly: half of what they spread is known from such a mean. Each linear path goes
    through two units of every layer, of v and of -v, since their LeakyReLUs differ by v itself.

    Args:
        h_a, h_s: of the mean & scale hyperprior, after `_start_energies`.
        channels: what that returned; the first units of h_a hear them in this order.
        std: of the latents, (M,).
        means: outputs of h_s before those that are means; there are as many means.

    Returns:
        Standard deviation of each hyper-latent (N,), about.
    """
    _, second, last = (layer for layer in h_a if isinstance(layer, nn.Conv2d))
    up1, up2, head = h_s[0], h_s[2], h_s[4]
    assert isinstance(up1, nn.ConvTranspose2d)
    assert isinstance(up2, nn.ConvTranspose2d)
    assert isinstance(head, nn.Conv2d)
    kernel, straight = torch.outer(torch.tensor(SPLINE), torch.tensor(SPLINE)), torch.outer(SIGNS, SIGNS)
    hyper_std, num_energies = torch.ones(last.out_channels), len(channels)
    num_means = min((last.out_channels - num_energies) // 2, up1.out_channels // 2)
    for number, channel in enumerate(channels[:num_means]):
        pair = slice(2 * number, 2 * number + 2)  # of h_a's first layer, and of h_s
        free, z = slice(num_energies + pair.start, num_energies + pair.stop), num_energies + number
        hyper_std[z] = gain = MEAN_GAIN * std[channel].clamp(min=0.3)
        second.weight[free] = 0
        second.weight[free, pair, 1:4, 1:4] = straight[:, :, None, None] / 9
        last.weight[z] = 0
        last.weight[z, free, 1:4, 1:4] = gain * SIGNS[:, None, None] / 9
        up1.weight[:, pair] = 0
        up1.weight[z, pair] = SIGNS[:, None, None] * kernel
        up2.weight[:, pair] = 0
        up2.weight[pair, pair] = straight[:, :, None, None] * kernel
        head.weight[means + channel : 2 * means : len(std), pair, 1, 1] += SIGNS / MEAN_GAIN  # of every component
    return hyper_std


def _start_prior(prior: FactorizedDensity, std: Tensor) -> None:
    # Each of the layers shares in the slope of the logit; a logistic density of scale s has standard deviation 1.8 s.
    per_layer = (std.clamp(min=0.3) / 1.8) ** (1 / len(prior.matrices))
    for matrix in prior.matrices:
        matrix.copy_(torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))[:, None, None].expand_as(matrix))
