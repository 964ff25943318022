"""The objective of a search has the model's bits and gradients, and its values at integers."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.codec.latents import Latents
from jahp_pl.codec.search.latent_objective import LatentObjective, Region, SearchedImage, SearchLoss, mixture_bits
from jahp_pl.codec.search.refinement import Refiner
from jahp_pl.config import LossConfig
from jahp_pl.layers import GDN
from tests.support.codec_models import MIXTURE, ONE_OF_EACH, Variant, model_of, variable_codec
from tests.support.latent_searches import FEW, picture, searching, start_of

VARIABLE_LOSS = LossConfig("mse", 0.002, 0.1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("level", [0.0, 2.5])
def test_the_gains_of_a_level_belong_to_the_objective(level: float) -> None:
    """If latents are scaled before rounding and back before g_s, the search still lowers the objective."""
    codec, image = variable_codec(), picture(80, 80)
    y = codec.transforms.scale(codec.transforms.analyze(image), level)
    start = Latents(y[0].round().int(), codec.transforms.hyper_analyze(y)[0].round().int())
    searched = SearchedImage(image, start.z_hat[None], codec.transforms.gain_after(level))
    loss = FEW.loss_of(VARIABLE_LOSS.objective_at(level / 3))
    objective = LatentObjective(codec.model, searched, loss, Region(0, y.shape[2], 0, y.shape[3]))
    found = Refiner(codec.model, codec.transforms, image, VARIABLE_LOSS, FEW)(y, start.z_hat, level).round()
    assert objective.score(found[None], codec.transforms) < objective.score(start.y_hat.float()[None], codec.transforms)


@pytest.mark.parametrize("variant", [v for v in ONE_OF_EACH if v.entropy_model != "factorized"], ids=str)
def test_bits_and_their_gradients_are_those_of_the_model(variant: Variant) -> None:
    density = model_of(variant).density
    y = 3 * torch.randn(1, 5, 4, 6)
    raw = torch.randn(1, density.num_blocks * density.num_components * 5, 4, 6)
    results = []
    for bits_of in (lambda a, b: density.bits(a, density.parameters(b)), lambda a, b: mixture_bits(density, a, b)):
        inputs = y.clone().requires_grad_(), raw.clone().requires_grad_()
        bits = bits_of(*inputs)
        results.append((bits.detach(), *torch.autograd.grad(bits.clamp(max=16).sum(), inputs)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_has_the_same_gradient_with_frozen_parameters(inverse: bool) -> None:
    layer, gradients = GDN(6, inverse), []
    x = torch.randn(2, 6, 5, 4)
    for is_trained in (True, False):
        layer.requires_grad_(is_trained)
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(layer(leaf).square().sum(), leaf)[0])
    torch.testing.assert_close(*gradients)


def test_the_objective_equals_the_score_at_integers() -> None:
    """At integers, the objective of the descent equals the score, up to bfloat16."""
    codec, image = searching(MIXTURE), picture(96, 96)
    _, start = start_of(codec, image)
    searched = SearchedImage(image, start.z_hat[None])
    objective = LatentObjective(codec.model, searched, SearchLoss("mse", 0.01, 0.3), Region(0, 6, 0, 6))
    y_hat = start.y_hat.float()[None]
    assert float(objective(y_hat)) == pytest.approx(objective.score(y_hat, codec.transforms), rel=0.02)
