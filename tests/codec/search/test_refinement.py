"""The encoder's search is never worse than rounding, is reproducible, and writes ordinary files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.search import refinement
from jahp_pl.codec.search.latent_objective import LatentObjective, Region, SearchedImage, SearchLoss
from jahp_pl.codec.search.latent_search import Search
from jahp_pl.codec.search.refinement import EFFORTS, Refiner, search_bytes
from jahp_pl.codec.transforms.runner import MemoryLimitError, TransformRunner
from jahp_pl.config import LossConfig
from tests.support.codec_models import GOLDEN, JOINT, MIXTURE, ONE_OF_EACH, Variant, codec_of, load_golden, model_of
from tests.support.latent_searches import FEW, LOSS, picture, refine, score, searching, start_of

pytestmark = pytest.mark.usefixtures("one_thread")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_a_file_of_a_search_decodes_to_its_latents_and_is_worth_more(variant: Variant) -> None:
    codec, image = searching(variant), picture(80, 100)
    plain, found = codec.encode(image), codec.encode(image, effort=1)
    assert torch.equal(codec_of(variant).decode(found.data).y_hat, found.y_hat)
    assert not torch.equal(found.y_hat, plain.y_hat)
    assert score(codec, image, found.y_hat, found.z_hat) < score(codec, image, plain.y_hat, plain.z_hat)


@pytest.mark.parametrize("variant", [JOINT, Variant("factorized")], ids=str)
def test_without_effort_the_file_is_that_of_a_codec_without_an_objective(variant: Variant) -> None:
    image = picture(80, 100)
    assert searching(variant).compress(image, effort=0) == codec_of(variant).compress(image)
    assert searching(variant).compress_all([image], effort=1) == [searching(variant).compress(image, effort=1)]


@pytest.mark.parametrize("name", ["joint", "mixture"])
def test_golden_files_decode_with_a_codec_that_searches(name: str) -> None:
    codec = Codec(load_golden(name), objective=LOSS)
    assert codec.decompress((GOLDEN / f"{name}.jahp").read_bytes()).shape[0] == 3


def test_the_bytes_depend_on_the_seed_alone() -> None:
    codec, image = searching(MIXTURE), picture(96, 64)
    assert codec.compress(image, effort=1) == codec.compress(image, effort=1)
    y, start = start_of(codec, image)
    refiner = Refiner(codec.model, codec.transforms, image, LOSS, FEW)
    first, second = (dataclasses.replace(refiner, seed=seed)(y, start.z_hat, None) for seed in (1, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("effort", [-1, len(EFFORTS), 99, "1", 1.5, None])
def test_an_effort_that_does_not_exist_is_refused(effort: object) -> None:
    for codec in (searching(JOINT), codec_of(JOINT)):
        with pytest.raises(ValueError, match=rf"effort {effort!r}: must be a whole number from 0 to 6"):
            codec.compress(picture(16, 16), effort=effort)  # type: ignore[arg-type]


def test_a_search_without_an_objective_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"effort 1: .* objective=LossConfig") as caught:
        codec_of(JOINT).compress(picture(16, 16), effort=1)
    assert "\n" not in str(caught.value)


# --- never worse than rounding ----------------------------------------------------------------------------------------


def odd_images() -> Iterator[Tensor]:
    yield picture(1, 1)
    yield picture(63, 200)
    yield picture(64, 64)
    yield picture(71, 93)
    yield torch.full((3, 70, 66), 128, dtype=torch.uint8)
    yield torch.zeros(3, 64, 80, dtype=torch.uint8)
    yield torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 66, 70), dtype=np.uint8))


@pytest.mark.parametrize(
    "search", [FEW, Search("freeze", 1, learning_rate=3.0), Search("sga", 3, learning_rate=0.05)], ids=str
)
@pytest.mark.parametrize("distortion", ["mse", "ms_ssim"])
def test_the_result_is_never_worse_than_rounding(search: Search, distortion) -> None:
    codec, loss = searching(MIXTURE), LossConfig(distortion, 0.01 if distortion == "mse" else 12.0)
    for image in odd_images():
        y, start = start_of(codec, image)
        found = refine(codec, image, y, start, loss, search)
        assert found.dtype == torch.int32
        assert found.shape == start.y_hat.shape
        assert score(codec, image, found, start.z_hat, loss) <= score(codec, image, start.y_hat, start.z_hat, loss)


def test_small_images_are_only_rounded() -> None:
    codec, image = searching(JOINT), picture(63, 200)
    assert codec.compress(image, effort=1) == codec.compress(image)


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [MIXTURE, Variant("context", "laplace", 3), Variant("factorized")], ids=str)
def test_tiles_gain_nearly_as_much_as_the_whole_image(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, image = searching(variant), picture(256, 384)
    y, start = start_of(codec, image)
    whole = refine(codec, image, y, start)
    limit = search_bytes(codec.model.config, 16, 17)
    tiles = list(refinement._search_tiles(codec.model.config, 16, 24, limit))
    assert len(tiles) > 1
    runner = TransformRunner(codec.model, memory_limit=limit)
    tiled = Refiner(codec.model, runner, image, LOSS, FEW)(y, start.z_hat, None).round().int()
    before, after, apart = (score(codec, image, y_hat, start.z_hat) for y_hat in (start.y_hat, whole, tiled))
    assert before - apart > 0.8 * (before - after) > 0


def test_a_tile_covers_everything_its_latents_influence() -> None:
    """Changing a tile's latents changes its objective by the same amount as the whole image's."""
    codec, image = searching(MIXTURE), picture(256, 384)
    _, start = start_of(codec, image)
    config, model = codec.model.config, codec.model
    searched, loss = SearchedImage(image, start.z_hat[None]), SearchLoss("mse", 0.01, 0.0)
    y_hat = start.y_hat.float()[None]
    for core, counted, seen in refinement._search_tiles(config, 16, 24, search_bytes(config, 16, 17)):
        changed = y_hat.clone()
        core.of(changed).add_(torch.randint(-1, 2, core.of(changed).shape))
        tile = LatentObjective(model, searched, loss, seen, counted)
        whole = LatentObjective(model, searched, loss, Region(0, 16, 0, 24))

        def gain(objective: LatentObjective, after: Tensor, before: Tensor) -> float:
            return objective.score(after, codec.transforms) - objective.score(before, codec.transforms)

        by_tile = gain(tile, seen.of(changed), seen.of(y_hat))
        assert by_tile == pytest.approx(gain(whole, changed, y_hat), rel=1e-3)


def test_a_limit_below_one_tile_is_refused_with_the_memory_needed() -> None:
    limit = searching(JOINT).transforms.tile_bytes.smallest()
    codec = Codec(model_of(JOINT), objective=LOSS, memory_limit=limit)
    with pytest.raises(MemoryLimitError, match=r"give at least \d+ MiB, or effort 0"):
        codec.compress(picture(256, 384), effort=1)
