"""The descents of a search: what they freeze when, what they optimize, and what they report."""

from __future__ import annotations

import warnings

import pytest
import torch

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.search.latent_objective import LatentObjective, Region, SearchedImage, SearchLoss
from jahp_pl.codec.search.latent_search import RefinementWarning, Search, _choose_frozen, _share_frozen
from jahp_pl.codec.search.refinement import Refiner
from tests.support.codec_models import JOINT, MIXTURE, load_golden
from tests.support.latent_searches import FEW, LOSS, picture, refine, score, searching, start_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_annealing_improves_on_rounding_and_reports_each_step() -> None:
    codec, image, seen = searching(JOINT), picture(96, 96), []
    y, start = start_of(codec, image)
    search = Search("sga", 30, learning_rate=0.05, final_learning_rate=0.01)
    refiner = Refiner(codec.model, codec.transforms, image, LOSS, search, progress=lambda *n: seen.append(n))
    found = refiner(y, start.z_hat, None).round().int()
    assert score(codec, image, found, start.z_hat) < score(codec, image, start.y_hat, start.z_hat)
    assert seen == [(step, 30) for step in range(1, 31)]


def test_non_finite_gradients_fall_back_to_rounding_with_a_warning() -> None:
    model = load_golden("joint")
    with torch.no_grad():
        model.g_s[0].weight *= 1e30  # still finite, as a codec requires
    codec, image = Codec(model, objective=LOSS), picture(64, 64)
    with pytest.warns(RefinementWarning, match="not finite"):
        data = codec.compress(image, effort=1)
    assert data == codec.compress(image)


def test_freezing_prefers_latents_near_an_integer_and_keeps_what_is_frozen() -> None:
    y = torch.tensor([0.5, 1.0, 0.5, 0.0, 0.25, 0.75]).view(1, 6, 1, 1)
    keys = torch.tensor([-1.0, 0.3, 0.1, 0.5, 0.2, 0.9]).view(1, 6, 1, 1)
    is_free = torch.tensor([False, True, True, True, True, True]).view(1, 6, 1, 1)

    def chosen(nearness: float, share: float) -> list[int]:
        return _choose_frozen(y, keys, is_free, nearness, share).flatten().nonzero().flatten().tolist()

    assert chosen(0.0, 0.0) == [0]
    assert chosen(0.0, 0.4) == [0, 2, 4]
    assert chosen(1.0, 0.4) == [0, 1, 3]
    is_free[0, 2] = False
    assert chosen(1.0, 0.4) == [0, 1, 2]
    assert chosen(1.0, 1.0) == [0, 1, 2, 3, 4, 5]


def test_the_last_portion_of_frozen_latents_is_half_as_large_as_the_others() -> None:
    assert [_share_frozen(Search("freeze", 4), step) for step in range(4)] == pytest.approx([0, 2 / 7, 4 / 7, 6 / 7])
    late = Search("freeze", 4, warm_up=0.5)
    assert [_share_frozen(late, step) for step in range(4)] == pytest.approx([0, 0, 0, 2 / 3])
    assert _share_frozen(Search("freeze", 4, warm_up=1.0), 3) == 0
    assert _share_frozen(Search("freeze", 1), 0) == 0


def test_a_larger_lambda_spends_more_bits_on_fewer_errors() -> None:
    codec, image = searching(MIXTURE), picture(96, 128)
    y, start = start_of(codec, image)
    spans = []
    for factor in (0.5, 4.0):
        found = refine(codec, image, y, start, search=FEW._replace(lmbda_factor=factor))
        searched = SearchedImage(image, start.z_hat[None])
        parts = [
            LatentObjective(codec.model, searched, SearchLoss("mse", lmbda, 0.0), Region(0, 6, 0, 8))
            for lmbda in (1e-9, 1e3)
        ]
        spans.append([objective.score(found.float()[None], codec.transforms) for objective in parts])
    (fewer_bits, larger_error), (more_bits, smaller_error) = spans
    assert fewer_bits < more_bits
    assert smaller_error < larger_error


def test_an_ordinary_search_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searching(JOINT).compress(picture(64, 64), effort=1)
