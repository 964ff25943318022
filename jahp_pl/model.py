"""The compression model; each of the paper's five entropy models is a configuration of it.

          +-----+       +----------------+
x ------->| g_a |-- y ->| round (+noise) |-- y_hat ---------------+----------> g_s ---> x_hat
          +-----+   |   +----------------+      |                 |
                    v                           v                 | coded under p(y_hat | mu, sigma)
                 +-----+                    +------+              |
                 | h_a |                    | g_cm | causal       |
                 +-----+                    +------+              |
                    | z                         | phi      +------+----+
                    v                           +--------->|           |
            +----------------+          +-----+            |   g_ep    |--> mu, sigma (, weights)
            | round (+noise) |- z_hat ->| h_s |--- psi --->|           |
            +----------------+          +-----+            +-----------+
               coded under p(z_hat)

Networks by entropy model:

entropy model           h_a, h_s   g_cm, g_ep
factorized                                       y_hat has a factorized density of its own
scale_hyperprior        yes                      psi is sigma; mu = 0
mean_scale_hyperprior   yes                      psi is (sigma, mu)
context                            yes           no side information
joint                   yes        yes           the paper's model

Layers of the joint model with N filters and M latent channels ("/2" halves and "x2" doubles height and width;
LeakyReLU has slope 0.01):

net    layers
g_a    conv 5x5 /2   3-N,  GDN    conv 5x5 /2   N-N,  GDN    conv 5x5 /2   N-N,  GDN    conv 5x5 /2   N-M
g_s    tconv 5x5 x2  M-N,  IGDN   tconv 5x5 x2  N-N,  IGDN   tconv 5x5 x2  N-N,  IGDN   tconv 5x5 x2  N-3
h_a    conv 3x3      M-N,  LeakyReLU   conv 5x5 /2   N-N,       LeakyReLU   conv 5x5 /2  N-N
h_s    tconv 5x5 x2  N-M,  LeakyReLU   tconv 5x5 x2  M-3M/2,    LeakyReLU   conv 3x3     3M/2-2M
g_cm   masked conv 5x5 (12 of 25 taps)  M-2M
g_ep   conv 1x1      4M-10M/3,  LeakyReLU   conv 1x1  10M/3-8M/3,  LeakyReLU   conv 1x1  8M/3-2M
       (3KM outputs with K > 1 mixture components: scales, means, logits)
       (in the hidden layers of h_s and g_ep, `entropy_width` takes the place of M if it is set)
prior  factorized density of z_hat, widths 1-3-3-3-3-1 per channel

A variable-rate model (`gains`) scales y before rounding and scales y_hat back before g_s.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jahp_pl.config import ModelConfig
from jahp_pl.context import ContextPrediction, entropy_network_of
from jahp_pl.deprecation import renamed
from jahp_pl.entropy_model import ConditionalDensity, EntropyParameters, FactorizedDensity
from jahp_pl.exact_layers import ENTROPY_PARAMETERS, HYPER_SYNTHESIS, check_exact
from jahp_pl.gains import LevelGains
from jahp_pl.hyperprior import crop_to, hyper_transforms_of
from jahp_pl.ops import add_uniform_noise, round_straight_through
from jahp_pl.strides import HYPER_STRIDE
from jahp_pl.transforms import pad_to_stride, transforms_of


class ModelOutput(NamedTuple):
    """Result of one forward pass over a batch of images."""

    x_hat: Tensor
    """(B, 3, H, W): reconstruction, about [0, 1], not clipped; (B, 3, 0, 0) if none was requested."""
    y_hat: Tensor
    """(B, M, h, w): latents as the decoder gets them; integers in evaluation mode."""
    bits_y: Tensor
    """(B, M, h, w): bits of each latent."""
    bits_z: Tensor
    """(B, N, ceil(h / 4), ceil(w / 4)): bits of each hyper-latent; (B, 0, 0, 0) without side information."""
    parameters: EntropyParameters | None
    """Entropy parameters of each latent; None for `factorized`."""


class Bits(NamedTuple):
    """Bits of given latents and hyper-latents."""

    y: Tensor
    """(B, M, h, w): bits of each latent."""
    z: Tensor
    """(B, N, ceil(h / 4), ceil(w / 4)): bits of each hyper-latent; (B, 0, 0, 0) without side information."""
    parameters: EntropyParameters | None
    """Entropy parameters of each latent; None for `factorized`."""


class CompressionModel(nn.Module):
    """Transforms, hyperprior and context model (paper, figure 1); the last two may be absent.

    Args:
        config: architecture.

    Attributes:
        g_a, g_s, h_a, h_s, g_cm, g_ep: networks, named by the paper's letters; None if absent.
        prior: factorized density of z_hat, or of y_hat for `factorized`; None for `context`.
        gains: scales of the latents at each rate level; None for a single-rate model.
        density: p(y_hat | ...), stateless.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        N, M = config.num_filters, config.num_latents
        self.density = ConditionalDensity(config)
        num_parameters = self.density.num_blocks * config.num_components * M
        has_hyperprior, has_context = config.has_hyperprior, config.has_context
        magnitudes = config.entropy_model == "scale_hyperprior"

        self.g_a = transforms_of(config.transform).analysis(N, M)
        self.g_s = transforms_of(config.transform).synthesis(N, M)
        hyper = hyper_transforms_of(config.hyper_transform)
        self.h_a = hyper.analysis(N, M, magnitudes) if has_hyperprior else None
        num_psi = 2 * M if has_context else num_parameters
        self.h_s: nn.Sequential | None = None
        if has_hyperprior:
            h_s = hyper.synthesis(N, config.entropy_channels, num_psi, magnitudes)
            self.h_s = check_exact("h_s", h_s, HYPER_SYNTHESIS, (N, num_psi), HYPER_STRIDE)
        self.g_cm = ContextPrediction(M) if has_context else None
        num_inputs = 4 * M if has_hyperprior else 2 * M
        self.g_ep: nn.Sequential | None = None
        if has_context:
            g_ep = entropy_network_of(config.entropy_network)(config.entropy_channels, num_inputs, num_parameters)
            self.g_ep = check_exact("g_ep", g_ep, ENTROPY_PARAMETERS, (num_inputs, num_parameters), 1)
        self.prior = FactorizedDensity(N if has_hyperprior else M) if config.entropy_model != "context" else None
        self.gains = LevelGains(config.num_levels, M) if config.num_levels > 1 else None

    @property
    def transforms(self) -> list[nn.Module]:
        """The networks between pixels and quantized latents: g_a, g_s, and the gains of a variable-rate model."""
        return [self.g_a, self.g_s, *([] if self.gains is None else [self.gains])]

    def forward(self, x: Tensor, reconstruct: bool = True, level: Tensor | None = None) -> ModelOutput:
        """Quantize the latents of a batch of images, compute their bits, and reconstruct the images.

        Args:
            x: (B, 3, H, W) in [0, 1], any H and W; padded internally to multiples of 16.
            reconstruct: whether to run g_s; the rate does not need it.
            level: (B,) level of each image, from 0 to S - 1; None for a single-rate model.

        Returns:
            The output. In training mode, rounding is replaced as `ModelConfig.quantization` says. In evaluation mode,
            y_hat and z_hat are rounded, so that x_hat is exactly the decoder's output.
        """
        y = self.analyze(x, level)
        z_hat = None if self.h_a is None else self._quantize(self.h_a(y).float())
        y_rate = self._quantize(y)
        mixed = self.training and self.config.quantization == "mixed"
        y_hat = round_straight_through(y) if mixed else y_rate
        bits_y, bits_z, parameters = self.bits(y_rate, z_hat)
        height, width = x.shape[-2:]
        x_hat = self.synthesize(y_hat, height, width, level) if reconstruct else x.new_zeros(*x.shape[:2], 0, 0)
        return ModelOutput(x_hat, y_hat, bits_y, bits_z, parameters)

    def decode(
        self, y_hat: Tensor, z_hat: Tensor | None, height: int, width: int, level: Tensor | None = None
    ) -> ModelOutput:
        """Compute the bits of given latents and reconstruct the images, as `forward` does from the pixels.

        Args:
            y_hat, z_hat: see `bits`.
            height, width: see `synthesize`.
            level: see `forward`.
        """
        return ModelOutput(self.synthesize(y_hat, height, width, level), y_hat, *self.bits(y_hat, z_hat))

    def bits(self, y_hat: Tensor, z_hat: Tensor | None) -> Bits:
        """Compute the bits of latents and hyper-latents, which may be noisy, rounded, or read from a file.

        Args:
            y_hat: (B, M, h, w), scaled by the gains if the model has them.
            z_hat: (B, N, ceil(h / 4), ceil(w / 4)); None without side information.
        """
        if self.config.entropy_model == "factorized":
            assert self.prior is not None
            return Bits(self.prior.bits(y_hat), y_hat.new_zeros(len(y_hat), 0, 0, 0), None)
        parameters = self.entropy_parameters(y_hat, z_hat)
        bits_z = y_hat.new_zeros(len(y_hat), 0, 0, 0)
        if z_hat is not None and self.prior is not None:
            bits_z = self.prior.bits(z_hat)
        return Bits(self.density.bits(y_hat, parameters), bits_z, parameters)

    def analyze(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        """Apply g_a and the gains: images (B, 3, H, W) of any size -> y (B, M, ceil(H / 16), ceil(W / 16)) in float32.

        Args:
            x: images in [0, 1].
            level: (B,) level of each image, from 0 to S - 1; None for a single-rate model.

        Raises:
            ValueError: if a variable-rate model gets no level, or a single-rate model gets one.
        """
        y: Tensor = self.g_a(pad_to_stride(x)).float()
        return y if (gains := self._gains(level)) is None or level is None else y * gains.before_rounding(level)

    def synthesize(self, y_hat: Tensor, height: int, width: int, level: Tensor | None = None) -> Tensor:
        """Apply the inverse gains and g_s: y_hat (B, M, h, w) -> x_hat (B, 3, height, width), not clipped to [0, 1].

        Args:
            y_hat: quantized latents.
            height, width: size in pixels to which x_hat is cropped, up to 16 h and 16 w.
            level: see `analyze`.

        Raises:
            ValueError: see `analyze`.
        """
        if (gains := self._gains(level)) is not None and level is not None:
            y_hat = y_hat * gains.after_rounding(level)
        x_hat: Tensor = self.g_s(y_hat)
        return x_hat[..., :height, :width].float()

    analyse, synthesise = renamed("analyse", analyze), renamed("synthesise", synthesize)

    def _gains(self, level: Tensor | None) -> LevelGains | None:
        """Return the gains; check that a level is given if and only if there are any."""
        if (self.gains is None) != (level is None):
            last = self.config.num_levels - 1
            raise ValueError(
                f"level is missing: this is a variable-rate model; give each image a level from 0 to {last}"
                if level is None
                else "level is given, but this model has a single rate; leave it out"
            )
        return self.gains

    def entropy_parameters(self, y_hat: Tensor, z_hat: Tensor | None) -> EntropyParameters:
        """Compute the parameters of p(y_hat | z_hat, earlier y_hat) at all positions at once.

        Args:
            y_hat: (B, M, h, w).
            z_hat: (B, N, ceil(h / 4), ceil(w / 4)); None for `context`.
        """
        features = []
        if self.h_s is not None:
            features.append(crop_to(self.h_s(z_hat), y_hat))
        if self.g_cm is not None:
            features.append(self.g_cm(y_hat))
        raw = torch.cat(features, dim=1)
        return self.density.parameters(self.g_ep(raw) if self.g_ep is not None else raw)

    def _quantize(self, latents: Tensor) -> Tensor:
        """Round, or add noise in its place, as `ModelConfig.quantization` says for the rate."""
        is_noisy = self.training and self.config.quantization != "rounded"
        return add_uniform_noise(latents) if is_noisy else torch.round(latents)
