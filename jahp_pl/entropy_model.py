"""The two probability models: factorized p(z_hat), and p(y_hat | hyperprior, context) with its entropy parameters.

Rates are in bits. Both models accept noisy latents in training (the rate is then an upper bound of the cross-entropy),
rounded latents in evaluation, and any integers from a codec.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.density_layout import Bounds, DensityLayout
from jahp_pl.distributions import density_of, mixture_log_mass
from jahp_pl.ops import lower_bound

LOG_LIKELIHOOD_MIN = -24 * math.log(2)
"""Floor of a latent's log-probability in nats: 24 bits, the resolution of the range coder and therefore the cost of an
outlier in a file. Gradients pass through the floor. (Published implementations use 1e-9, which is 29.9 bits.)"""

BITS_PER_NAT = 1 / math.log(2)


class FactorizedDensity(nn.Module):
    """Learned unconditional density of each channel (Balle et al. 2018, appendix 6.1).

    The cumulative is F = sigmoid(f_4 ... f_0), with f_k(x) = g_k(softplus(H_k) x + b_k), g_k(x) = x + tanh(a_k) tanh(x)
    and g_4 the identity. It is monotone by construction; hidden widths 3, 3, 3, 3 make it flexible.

    Args:
        num_channels: C.
        init_scale: approximate width of the initial density.
    """

    WIDTHS = (1, 3, 3, 3, 3, 1)

    def __init__(self, num_channels: int, init_scale: float = 10.0) -> None:
        super().__init__()
        self.num_channels = num_channels
        num_layers = len(self.WIDTHS) - 1
        layer_scale = init_scale ** (1 / num_layers)
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for k, (width_in, width_out) in enumerate(zip(self.WIDTHS, self.WIDTHS[1:], strict=False)):
            start = math.log(math.expm1(1 / layer_scale / width_out))
            self.matrices.append(torch.full((num_channels, width_out, width_in), start))
            self.biases.append(torch.empty(num_channels, width_out, 1).uniform_(-0.5, 0.5))
            if k < num_layers - 1:
                self.factors.append(torch.zeros(num_channels, width_out, 1))

    def cumulative_logits(self, x: Tensor) -> Tensor:
        """Compute logit F(x) elementwise: (C, 1, n) -> (C, 1, n), in the dtype of x."""
        for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix.to(x.dtype)) @ x + bias.to(x.dtype)  # softplus(H_k) x + b_k
            if k < len(self.factors):  # g_k(x) = x + tanh(a_k) tanh(x)
                x = x + torch.tanh(self.factors[k].to(x.dtype)) * torch.tanh(x)
        return x

    def bits(self, z: Tensor) -> Tensor:
        """Compute -log2 P of the unit bin around each value: (B, C, h, w) -> (B, C, h, w), >= 0, in float32."""
        with torch.autocast(z.device.type, enabled=False):
            rows = z.float().transpose(0, 1).reshape(self.num_channels, 1, -1)  # (C, 1, B h w)
            lower, upper = self.cumulative_logits(rows - 0.5), self.cumulative_logits(rows + 0.5)
            # P = F(z + 1/2) - F(z - 1/2) with F = s, the sigmoid of the logits l and u:
            # s(u) - s(l) = s(u) s(-l) (1 - exp(l - u)); the bound avoids log(0) where F is flat.
            width = lower_bound(upper - lower, 1e-6)
            log_mass = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
            batch, _, height, columns = z.shape
            bits = -BITS_PER_NAT * lower_bound(log_mass, LOG_LIKELIHOOD_MIN)
            return bits.view(self.num_channels, batch, height, columns).transpose(0, 1)


class EntropyParameters(NamedTuple):
    """Entropy parameters of each latent, for K mixture components; float32."""

    mu: Tensor
    """(B, K, M, h, w): means; zero for `scale_hyperprior`."""
    sigma: Tensor
    """(B, K, M, h, w): scales, >= `scale_min` of the family."""
    log_weights: Tensor
    """(B, K, M, h, w): log w_k, normalized over K; zero for K = 1."""


class ConditionalDensity(DensityLayout):
    """p(y_hat | hyperprior, context): one density or mixture per latent, given by raw network outputs. Stateless."""

    @property
    def bounds(self) -> Bounds:
        """Bounds of the family, which may be a registered one."""
        _, _, *bounds = density_of(self.family)
        return Bounds(*bounds)

    def parameters(self, raw: Tensor) -> EntropyParameters:
        """Convert raw network outputs (B, num_blocks K M, h, w) to entropy parameters in float32."""
        batch, channels, height, width = raw.shape
        num_latents = channels // (self.num_blocks * self.num_components)
        blocks = raw.float().view(batch, self.num_blocks, self.num_components, num_latents, height, width).unbind(1)
        sigma = lower_bound(blocks[0], density_of(self.family).scale_min)
        zeros = torch.zeros_like(sigma)
        mu = blocks[1] if self.has_means else zeros
        log_weights = torch.log_softmax(blocks[-1], dim=1) if self.num_components > 1 else zeros
        return EntropyParameters(mu, sigma, log_weights)

    def bits(self, y: Tensor, parameters: EntropyParameters) -> Tensor:
        """Compute -log2 P of the unit bin around each value: (B, M, h, w) -> (B, M, h, w), in float32."""
        with torch.autocast(y.device.type, enabled=False):
            log_mass = mixture_log_mass(self.family, y.float(), *parameters)
            return -BITS_PER_NAT * lower_bound(log_mass, LOG_LIKELIHOOD_MIN)
