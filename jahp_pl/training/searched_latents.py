"""Latents as an encoder sends them, for a phase in which only the decoder learns (`optim.search_effort`).

The encoder's search moves latents away from g_a(x): fewer differ from zero, and their errors cancel each other. A
decoder that trained on rounded latents has never seen such integers. Here g_s and the entropy model learn from them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.codec.latents import Latents
from jahp_pl.codec.search.latent_objective import LatentObjective, Region, SearchedImage
from jahp_pl.codec.search.latent_search import Search, run_search
from jahp_pl.codec.search.refinement import EFFORTS
from jahp_pl.config import LossConfig
from jahp_pl.model import CompressionModel, ModelOutput


def decode_searched(
    model: CompressionModel,
    chooser: CompressionModel,
    images: Tensor,
    level_share: Tensor | None,
    loss: LossConfig,
    effort: int,
) -> ModelOutput:
    """Run the decoder on latents as an encoder sends them; x_hat is clipped, as the search expects of a decoder.

    Args:
        model: model whose decoder learns.
        chooser: model that chooses the latents.
        images, level_share, loss, effort: see `choose_latents`.
    """
    chosen = choose_latents(chooser, images, level_share, loss, effort)
    level = None if level_share is None else model.config.level_at(level_share)
    height, width = images.shape[-2:]
    output = model.decode(chosen.y_hat, chosen.z_hat, height, width, level)
    return output._replace(x_hat=output.x_hat.clamp(0, 1))


def choose_latents(
    model: CompressionModel, images: Tensor, level_share: Tensor | None, loss: LossConfig, effort: int
) -> Latents[Tensor]:
    """Quantize a batch: search for the latents of half of the images, drawn at random, and round those of the others.

    The others are rounded so that the decoder does not lose at effort 0 what it gains at this effort.

    Args:
        model: model in evaluation mode, whose weights need no gradient.
        images: (B, 3, H, W) in [0, 1]; H and W must be multiples of 16.
        level_share: (B,) level of each image, from 0 (lowest) to 1 (highest); None for a single-rate model.
        loss: training objective, whose lambda the search uses.
        effort: effort of the search, at least 1, see docs/refinement.md.

    Returns:
        y_hat (B, M, h, w) and z_hat, integers in float32 without gradients. They depend on the state of torch's random
        generator.
    """
    search = EFFORTS[effort]
    assert search is not None
    level = None if level_share is None else model.config.level_at(level_share)
    with torch.no_grad():
        y = model.analyze(images, level)
        z_hat = None if model.h_a is None else torch.round(model.h_a(y).float())
        y_hat = torch.round(y)
    whole = Region(0, y.shape[2], 0, y.shape[3])
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    for index in torch.randperm(len(images))[: len(images) // 2].tolist():
        one = slice(index, index + 1)
        searched = SearchedImage(
            (255 * images[index]).round().to(torch.uint8),
            None if z_hat is None else z_hat[one],
            None if level is None or model.gains is None else model.gains.after_rounding(level[one]).flatten(),
        )
        objective = loss if level_share is None else loss.objective_at(float(level_share[index]))
        found = _search(LatentObjective(model, searched, search.loss_of(objective), whole), y[one], search, generator)
        if found is not None:
            y_hat[one] = found.round()
    return Latents(y_hat, z_hat)


def _search(objective: LatentObjective, y: Tensor, search: Search, generator: torch.Generator) -> Tensor | None:
    """Search for the latents of one image, (1, M, h, w); None if a gradient is not finite."""
    keys = torch.rand(y.shape, generator=generator).to(y.device)
    with torch.enable_grad(), torch.autocast(y.device.type, enabled=False):
        return run_search(objective, y, keys, search, generator, lambda _: None)
