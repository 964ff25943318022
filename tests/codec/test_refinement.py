"""The encoder's search is never worse than rounding, is reproducible, and writes ordinary files."""

from __future__ import annotations

import functools
import json
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import jahp_pl.pillow  # noqa: F401, a plugin
from jahp_pl.codec import refinement
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latent_objective import LatentObjective, Region, mixture_bits
from jahp_pl.codec.latent_search import RefinementWarning, Search, _comes_first, _share_frozen
from jahp_pl.codec.latents import Latents
from jahp_pl.codec.refinement import EFFORTS, refine, search_bytes
from jahp_pl.codec.structural_distortion import StructuralDistortion
from jahp_pl.codec.transforms.runner import MemoryLimitError
from jahp_pl.config import LossConfig
from jahp_pl.layers import GDN
from jahp_pl.quality import ms_ssim
from jahp_pl.report.read_results import read_curves
from tests.support import pages
from tests.support.codec_models import (
    GOLDEN,
    JOINT,
    MIXTURE,
    ONE_OF_EACH,
    Variant,
    codec_of,
    kodak_crop,
    load_golden,
    model_of,
)
from tests.support.commands import run

LOSS = LossConfig("mse", 0.01)
FEW = Search("freeze", 4)
pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def searching(variant: Variant) -> Codec:
    return Codec(model_of(variant), objective=LOSS)


def picture(height: int, width: int) -> Tensor:
    return torch.from_numpy(kodak_crop("kodim05")[:height, :width].copy()).movedim(-1, 0).contiguous()


def start_of(codec: Codec, image: Tensor) -> tuple[Tensor, Latents[Tensor]]:
    """Return y, and y_hat and z_hat by plain rounding."""
    y = codec.transforms.analyze(image)
    z_hat = None if codec.model.h_a is None else codec.transforms.hyper_analyze(y)[0].round().int()
    return y, Latents(y[0].round().int(), z_hat)


def score(codec: Codec, image: Tensor, y_hat: Tensor, z_hat: Tensor | None, loss: LossConfig = LOSS) -> float:
    """Return the objective of a search of the whole image at integer latents."""
    psi = None if z_hat is None else refinement._psi(codec.model, z_hat, Region(0, y_hat.shape[1], 0, y_hat.shape[2]))
    whole = Region(0, y_hat.shape[1], 0, y_hat.shape[2])
    loss = FEW.objective_of(loss)
    objective = LatentObjective(codec.model, image, psi, loss, FEW.structure_share, whole, whole)
    return objective.score(y_hat.float()[None], codec.transforms)


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
    first, second = (refine(codec.model, codec.transforms, image, y, start, LOSS, FEW, seed=seed) for seed in (1, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("effort", [-1, len(EFFORTS)])
def test_an_effort_that_does_not_exist_is_refused(effort: int) -> None:
    with pytest.raises(ValueError, match=f"effort {effort}: must be a whole number from 0 to 6"):
        searching(JOINT).compress(picture(16, 16), effort=effort)


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
        found = refine(codec.model, codec.transforms, image, y, start, loss, search)
        assert found.dtype == torch.int32
        assert found.shape == start.y_hat.shape
        assert score(codec, image, found, start.z_hat, loss) <= score(codec, image, start.y_hat, start.z_hat, loss)


def test_small_images_are_only_rounded() -> None:
    codec, image = searching(JOINT), picture(63, 200)
    assert codec.compress(image, effort=1) == codec.compress(image)


def test_annealing_improves_on_rounding_and_reports_each_step() -> None:
    codec, image, seen = searching(JOINT), picture(96, 96), []
    y, start = start_of(codec, image)
    found = refine(
        codec.model,
        codec.transforms,
        image,
        y,
        start,
        LOSS,
        Search("sga", 30, learning_rate=0.05, final_learning_rate=0.01),
        progress=lambda *n: seen.append(n),
    )
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


def test_freezing_prefers_latents_near_an_integer_and_keeps_what_is_frozen() -> None:
    y = torch.tensor([0.5, 1.0, 0.5, 0.0, 0.25, 0.75]).view(1, 6, 1, 1)
    keys = torch.tensor([-1.0, 0.3, 0.1, 0.5, 0.2, 0.9]).view(1, 6, 1, 1)
    is_free = torch.tensor([False, True, True, True, True, True]).view(1, 6, 1, 1)

    def chosen(nearness: float, share: float) -> list[int]:
        return _comes_first(y, keys, is_free, nearness, share).flatten().nonzero().flatten().tolist()

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
        search = FEW._replace(lmbda_factor=factor)
        found = refine(codec.model, codec.transforms, image, y, start, LOSS, search)
        whole = Region(0, 6, 0, 8)
        psi = refinement._psi(codec.model, start.z_hat, whole)
        parts = [
            LatentObjective(codec.model, image, psi, LossConfig("mse", lmbda), 0.0, whole, whole)
            for lmbda in (1e-9, 1e3)
        ]
        spans.append([objective.score(found.float()[None], codec.transforms) for objective in parts])
    (fewer_bits, larger_error), (more_bits, smaller_error) = spans
    assert fewer_bits < more_bits
    assert smaller_error < larger_error


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [MIXTURE, Variant("context", "laplace", 3), Variant("factorized")], ids=str)
def test_tiles_gain_nearly_as_much_as_the_whole_image(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, image = searching(variant), picture(256, 384)
    y, start = start_of(codec, image)
    whole = refine(codec.model, codec.transforms, image, y, start, LOSS, FEW)
    limit = search_bytes(codec.model.config, 16, 17)
    tiles = list(refinement._search_tiles(codec.model.config, 16, 24, limit))
    assert len(tiles) > 1
    tiled = refine(codec.model, codec.transforms, image, y, start, LOSS, FEW, memory_limit=limit)
    before, after, apart = (score(codec, image, y_hat, start.z_hat) for y_hat in (start.y_hat, whole, tiled))
    assert before - apart > 0.8 * (before - after) > 0


def test_a_tile_covers_everything_its_latents_influence() -> None:
    """Changing a tile's latents changes its objective by the same amount as the whole image's."""
    codec, image = searching(MIXTURE), picture(256, 384)
    _, start = start_of(codec, image)
    config, model = codec.model.config, codec.model
    loss = LossConfig("mse", 0.01)
    y_hat = start.y_hat.float()[None]
    for core, counted, seen in refinement._search_tiles(config, 16, 24, search_bytes(config, 16, 17)):
        changed = y_hat.clone()
        core.of(changed).add_(torch.randint(-1, 2, core.of(changed).shape))
        psi = refinement._psi(model, start.z_hat, seen)
        tile = LatentObjective(model, image, psi, loss, 0.0, seen, counted)
        all_of_it = Region(0, 16, 0, 24)
        whole = LatentObjective(
            model,
            image,
            refinement._psi(model, start.z_hat, all_of_it),
            loss,
            0.0,
            all_of_it,
            all_of_it,
        )

        def gain(objective: LatentObjective, after: Tensor, before: Tensor) -> float:
            return objective.score(after, codec.transforms) - objective.score(before, codec.transforms)

        by_tile = gain(tile, seen.of(changed), seen.of(y_hat))
        assert by_tile == pytest.approx(gain(whole, changed, y_hat), rel=1e-3)


def test_a_limit_below_one_tile_is_refused_with_the_memory_needed() -> None:
    codec, image = searching(JOINT), picture(256, 384)
    with pytest.raises(MemoryLimitError, match=r"give at least \d+ MiB, or effort 0"):
        refine(codec.model, codec.transforms, image, *start_of(codec, image), LOSS, FEW, memory_limit=2**20)


# --- gradients and values ---------------------------------------------------------------------------------------------


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


def test_structural_distortion_orders_as_ms_ssim_does() -> None:
    x = picture(256, 256)[None].float() / 255
    structure = StructuralDistortion(x)
    assert float(structure(x)) == pytest.approx(0, abs=1e-5)
    noisy = [(x + sigma * torch.randn(1, 1, 256, 256)).clamp(0, 1) for sigma in (0.02, 0.05, 0.1)]
    for one in noisy:
        assert float(structure(one)) == pytest.approx(1 - float(ms_ssim(one, x)), rel=0.5)
    assert sorted(noisy, key=lambda one: float(structure(one))) == noisy


def test_an_ordinary_search_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searching(JOINT).compress(picture(64, 64), effort=1)


# --- commands ---------------------------------------------------------------------------------------------------------


def test_commands_search_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(kodak_crop("kodim05")[:96, :96]).save("photos/a.png")
    for effort in ("0", "1"):
        assert run("compress", "photos/a.png", "-o", f"{effort}.jahp", "--effort", effort) == 0
    assert Path("1.jahp").read_bytes() != Path("0.jahp").read_bytes()
    assert run("compress", "photos/a.png", "-o", "none.jahp", "--memory", "64") == 0
    assert Path("none.jahp").read_bytes() == Path("0.jahp").read_bytes()
    results = ("--model", "joint-psnr", "--images", "photos")
    assert run("evaluate", *results, "--effort", "1", "--out", "r.json") == 0
    content = json.loads(Path("r.json").read_text())
    assert content["provenance"]["effort"] == 1
    assert content["images"][0]["mismatched_symbols"] == 0
    assert 0.97 < content["mean"]["cross_entropy_bpp"] / content["mean"]["exact_bpp"] < 1.03
    assert read_curves([Path("r.json")])[0].title == "Joint, variable rate, effort 1"


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/kodak").mkdir(parents=True)
    for path in ("photo.png", "data/kodak/kodim05.png"):
        Image.fromarray(kodak_crop("kodim05")[:80, :80]).save(path)
    commands = pages.commands(pages.read("refinement"))
    assert len(commands) == 2
    for command in commands:
        assert run(*shlex.split(command)[1:]) == 0
    assert Path("photo.jahp").exists()


def test_pillow_searches_on_request(tmp_path: Path) -> None:
    codec = searching(JOINT)
    image = Image.fromarray(kodak_crop("kodim05")[:96, :96])
    image.save(tmp_path / "a.jahp", model=codec, effort=1)
    assert (tmp_path / "a.jahp").read_bytes() == codec.compress(image, effort=1)
