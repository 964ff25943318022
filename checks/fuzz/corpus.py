"""Makes the files to mutate: valid files of small models of every kind, from one pixel up."""

from __future__ import annotations

from typing import NamedTuple

import torch

from jahp_pl.codec.bitstream import with_icc
from jahp_pl.codec.codec import Codec
from jahp_pl.model import CompressionModel
from tests.support.codec_models import Variant, kodak_crop, load_golden

SIZES = ((1, 1), (1, 40), (5, 7), (16, 16), (17, 33), (48, 80))
"""Heights and widths; the fourth image is gray. The last two sizes have more than one latent, and the last has
also more than one hyper-latent."""
PROFILE = bytes(range(256)) * 2
"""Color profile of every second file. The format does not interpret profiles, so any bytes will do."""
UNTRAINED = (
    Variant("factorized"), Variant("scale_hyperprior", "logistic"), Variant("mean_scale_hyperprior", "laplace", 3),
    Variant("context", "laplace"),
)  # fmt: skip


class Subject(NamedTuple):
    """Codec with valid files of its own."""

    name: str
    codec: Codec
    files: tuple[bytes, ...]


def subjects() -> list[Subject]:
    """Create the golden models, and codecs of the other kinds whose untrained densities code a photograph's latents."""
    models = {name: load_golden(name) for name in ("joint", "mixture", "variable")}
    return [
        _subject(name, Codec(model)) for name, model in (models | {str(v): _untrained(v) for v in UNTRAINED}).items()
    ]


def _untrained(variant: Variant) -> CompressionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CompressionModel(variant.config()).eval()
    model.g_a.load_state_dict(load_golden("joint").g_a.state_dict())
    return model


def _subject(name: str, codec: Codec) -> Subject:
    images = [kodak_crop()[:height, :width] for height, width in SIZES]
    images[3] = images[3][:, :, :1].repeat(3, 2)  # gray
    files = [codec.compress(image) for image in images]
    return Subject(name, codec, tuple(with_icc(f, PROFILE) if n % 2 else f for n, f in enumerate(files)))
