"""Codecs that search, images to search, and the objective of a search of a whole image."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latents import Latents
from jahp_pl.codec.search.latent_objective import LatentObjective, Region, SearchedImage
from jahp_pl.codec.search.latent_search import Search
from jahp_pl.codec.search.refinement import Refiner
from jahp_pl.config import LossConfig
from tests.support.codec_models import Variant, kodak_crop, model_of

LOSS = LossConfig("mse", 0.01)
FEW = Search("freeze", 4)
"""A search of four steps."""


@functools.cache
def searching(variant: Variant) -> Codec:
    """Return the shared codec of `model_of` that searches for `LOSS`."""
    return Codec(model_of(variant), objective=LOSS)


def picture(height: int, width: int) -> Tensor:
    """Cut (3, height, width) out of the corner of a photograph; at most 256 x 384 pixels."""
    return torch.from_numpy(kodak_crop("kodim05")[:height, :width].copy()).movedim(-1, 0).contiguous()


def start_of(codec: Codec, image: Tensor) -> tuple[Tensor, Latents[Tensor]]:
    """Return y, and y_hat and z_hat by plain rounding."""
    y = codec.transforms.analyze(image)
    z_hat = None if codec.model.h_a is None else codec.transforms.hyper_analyze(y)[0].round().int()
    return y, Latents(y[0].round().int(), z_hat)


def refine(
    codec: Codec, image: Tensor, y: Tensor, start: Latents[Tensor], loss: LossConfig = LOSS, search: Search = FEW
) -> Tensor:
    """Search for better integers than those of `start_of`."""
    return Refiner(codec.model, codec.transforms, image, loss, search)(y, start.z_hat, None).round().int()


def score(codec: Codec, image: Tensor, y_hat: Tensor, z_hat: Tensor | None, loss: LossConfig = LOSS) -> float:
    """Return the objective of a search of the whole image at integer latents."""
    whole = Region(0, y_hat.shape[1], 0, y_hat.shape[2])
    searched = SearchedImage(image, None if z_hat is None else z_hat[None])
    objective = LatentObjective(codec.model, searched, FEW.loss_of(loss), whole)
    return objective.score(y_hat.float()[None], codec.transforms)
