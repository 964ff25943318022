"""The objective of a search has the model's bits and gradients, and its values at integers."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.codec import refinement
from jahp_pl.codec.latent_objective import LatentObjective, Region, mixture_bits
from jahp_pl.codec.latents import Latents
from jahp_pl.codec.refinement import refine
from jahp_pl.layers import GDN
from tests.support.codec_models import JOINT, MIXTURE, ONE_OF_EACH, Variant, model_of
from tests.support.latent_searches import FEW, LOSS, picture, searching, start_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_factors_before_the_synthesis_belong_to_the_objective() -> None:
    """If latents are halved here and doubled again before g_s, the search still lowers the objective."""
    codec, image = searching(JOINT), picture(80, 80)
    y = codec.transforms.analyze(image) / 2
    start = Latents(y[0].round().int(), start_of(codec, image)[1].z_hat)
    scale = torch.full((y.shape[1],), 2.0)
    whole = Region(0, y.shape[2], 0, y.shape[3])
    psi = refinement._psi(codec.model, start.z_hat, whole)
    loss = FEW.objective_of(LOSS)
    objective = LatentObjective(codec.model, image, psi, loss, FEW.structure_share, whole, whole, scale)
    found = refine(codec.model, codec.transforms, image, y, start, LOSS, FEW, scale=scale)
    assert objective.score(found.float()[None], codec.transforms) < objective.score(
        start.y_hat.float()[None], codec.transforms
    )


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
    whole = Region(0, 6, 0, 6)
    objective = LatentObjective(
        codec.model, image, refinement._psi(codec.model, start.z_hat, whole), LOSS, 0.3, whole, whole
    )
    y_hat = start.y_hat.float()[None]
    assert float(objective(y_hat)) == pytest.approx(objective.score(y_hat, codec.transforms), rel=0.02)
