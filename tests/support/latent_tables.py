"""Tables of latents without a model, raw parameters for them, and the probabilities that they give."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jahp_pl.codec.entropy.latent_tables import LatentTables
from jahp_pl.codec.entropy.window_tables import WIDTHS, Windows
from jahp_pl.config import DensityName, EntropyModelName, ModelConfig
from jahp_pl.entropy_model import ConditionalDensity

M = 4
"""Number of latents at a position."""


def tables_of(family: DensityName, num_components: int, entropy_model: EntropyModelName = "joint") -> LatentTables:
    """Compute the tables of `M` latents at a position."""
    return LatentTables(ConditionalDensity(ModelConfig(entropy_model, 8, M, family, num_components)), M)


def cumulatives(tables: LatentTables) -> list[Tensor]:
    """Return one row per scale, with the sizes that the documentation gives."""
    rho = 5.5 if tables.density.family == "gaussian" else 18.0
    sizes = []
    for scale in tables.scales.tolist():
        resolution = next(r for r in range(1, 9) if r == 8 or 2.0**r >= 32 / scale)
        sizes.append(2 * math.ceil(rho * scale * 2**resolution) + 1)
    return list(torch.split(torch.from_numpy(tables.cumulative), sizes))


def raw_of(mu: Tensor | None, sigma: Tensor, logits: Tensor | None = None) -> Tensor:
    """Convert (P, K, M) each to rows of raw outputs in steps of 2^-12."""
    blocks = [block for block in (sigma, mu, logits) if block is not None]
    return torch.round(torch.stack(blocks, dim=1).double() * 4096).float().flatten(1)


def random_raw(count: int, num_components: int, spread: float = 20.0) -> Tensor:
    """Draw raw outputs of `count` positions, with means up to `spread` and scales beyond both ends of the tables."""
    shape = (count, num_components, M)
    sigma = torch.exp(torch.empty(shape).uniform_(math.log(0.03), math.log(300)))
    logits = 3 * torch.randn(shape) if num_components > 1 else None
    return raw_of(torch.empty(shape).uniform_(-spread, spread), sigma, logits)


def probabilities(tables: LatentTables, windows: Windows) -> list[dict[int | None, float]]:
    """Map each integer of each latent's window to its probability, and None to the escape's."""
    found: list[dict[int | None, float]] = [{} for _ in windows.kind]
    for kind in range(len(WIDTHS)):
        chosen = (windows.kind == kind).nonzero()[0]
        if len(chosen) == 0:
            continue
        masses = tables.masses(windows, chosen, kind)
        assert masses.shape == (len(chosen), WIDTHS[kind])
        for latent, row in zip(chosen, masses / masses.sum(axis=1, keepdims=True), strict=True):
            lowest = int(windows.lowest[latent])
            found[latent] = {lowest + k: float(p) for k, p in enumerate(row[:-1])}
            found[latent][None] = float(row[-1])
    return found
