"""`jahp evaluate` keeps existing results, and reports mistakes before hours of coding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from jahp_pl.config import ModelConfig
from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.image_set import Original, find_images, find_originals, identify
from jahp_pl.evaluation.table import _hundredths
from jahp_pl.files.locks import exclusive
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import checkpoint
from jahp_pl.model_io.export_config import read_fingerprint
from jahp_pl.model_io.pretrained import locate_model
from jahp_pl.report.previews import make_comparisons
from tests.support.commands import run
from tests.support.evaluating import evaluate, files_here, refused, without_times

pytestmark = pytest.mark.usefixtures("models", "images")


def test_two_models_on_one_folder_have_results_of_their_own() -> None:
    assert evaluate(model="small-1") == 0
    assert evaluate(model="small-2") == 0
    fingerprints = [
        json.loads(Path(f"evaluation/photos-{model}.json").read_text())["provenance"]["fingerprint"]
        for model in ("small-1", "small-2")
    ]
    assert fingerprints[0] != fingerprints[1]
    assert {f"evaluation/photos-small-{k}/{name}.jahp" for k in (1, 2) for name in "ab"} <= files_here()


def test_results_of_another_model_of_the_same_name_are_kept(capsys) -> None:
    assert evaluate() == 0
    assert evaluate() == 0
    capsys.readouterr()
    path = Path("evaluation/photos-small-1.json")
    text = path.read_text()
    other = text.replace(json.loads(text)["provenance"]["fingerprint"], "0" * 16)
    path.write_text(other)
    assert evaluate() == 2
    assert "has results of another model" in refused(capsys)
    assert path.read_text() == other


@pytest.mark.parametrize("content", ['{"curves": []}', "[1]", "", '{"provenance": {}}'])
def test_a_file_of_something_else_is_left_alone(content, capsys) -> None:
    Path("r.json").write_text(content)
    assert evaluate("--out", "r.json") == 2
    assert "r.json: has no results of `jahp evaluate`; move it away, or choose another --output" in refused(capsys)
    assert Path("r.json").read_text() == content
    assert not Path("r").exists()


def test_results_under_a_chosen_name_are_replaced() -> None:
    for model in ("small-1", "small-2"):
        assert evaluate("--out", "r.json", model=model) == 0
        there = bytes.fromhex(json.loads(Path("r.json").read_text())["provenance"]["fingerprint"])
        assert there == read_fingerprint(locate_model(model))


def test_an_unreadable_image_is_reported_before_any_is_coded(images, capsys) -> None:
    whole = (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(whole[: len(whole) // 2])
    assert evaluate("--out", "r.json") == 2
    assert "b.png: damaged" in refused(capsys)
    assert not Path("r").exists()


def test_an_image_with_a_side_too_long_for_the_format_is_reported_before_any_is_coded(images, capsys) -> None:
    Image.new("RGB", (66000, 2)).save(images / "wide.png")
    assert evaluate("--out", "r.json") == 2
    assert "wide.png: has 66000 x 2 pixels, but sides go up to 65535" in refused(capsys)
    assert not Path("r").exists()


def test_the_former_name_of_compare_works_and_is_not_shown(capsys) -> None:
    assert evaluate("--out", "r.json", "--beside", "jpeg") == 0
    assert json.loads(Path("r.json").read_text())["beside_mean"]["codec"] == "JPEG 4:2:0"
    capsys.readouterr()
    assert run("evaluate", "--help") == 0
    shown = capsys.readouterr().out
    assert "--compare {jpeg,jpeg444}" in shown
    assert "--beside" not in shown


def test_an_image_too_large_for_the_classical_codec_is_named(images, capsys) -> None:
    for path in images.iterdir():
        path.unlink()
    Image.new("RGB", (65520, 1)).save(images / "wide.png")
    assert evaluate("--out", "r.json", "--compare", "jpeg") == 2
    assert "jahp: wide.png: JPEG 4:2:0 cannot code this image (" in capsys.readouterr().err  # libjpeg itself says more


@pytest.mark.parametrize("name", ["r", "r.txt", "photos", "folder.json"])
def test_results_go_to_a_json_file(name, capsys) -> None:
    Path("folder.json").mkdir()
    before = files_here()
    assert evaluate("--out", name) == 2
    assert "must be the name of a file that ends in .json" in refused(capsys)
    assert files_here() == before


def test_files_never_go_among_the_images(images, capsys) -> None:
    (images / "sub").mkdir()
    (images / "a.png").rename(images / "sub" / "a.png")
    before = files_here()
    for out in ("photos.json", "photos/sub/../../photos.json"):
        assert evaluate("--out", out) == 2
        assert "files would be written among the images; choose another --output" in refused(capsys)
        assert files_here() == before
    assert run("evaluate", "--model", "small-1", "--images", "photos/b.png", "--out", "photos.json") == 2
    assert files_here() == before
    assert evaluate("--out", "photos/mine.json") == 0


def test_a_diverged_model_is_reported_with_the_image(capsys) -> None:
    model = CompressionModel(ModelConfig(num_filters=8, num_latents=12))
    with torch.no_grad():
        model.g_a[-1].weight.mul_(1e9)
    hyper = {"model": {"entropy_model": "joint", "num_filters": 8, "num_latents": 12}}
    state = {f"{checkpoint.MODEL_PREFIX}{name}": value for name, value in model.state_dict().items()}
    content = {
        checkpoint.CHECKPOINT_FORMAT_KEY: checkpoint.CHECKPOINT_FORMAT,
        checkpoint.HYPER_PARAMETERS: hyper,
        "state_dict": state,
    }
    torch.save(content, "diverged.ckpt")
    assert evaluate("--out", "r.json", model="diverged.ckpt") == 2
    error = refused(capsys)
    assert "a.png: latents exceed" in error
    assert "diverged" in error


def test_two_processes_do_not_write_one_file(capsys) -> None:
    with exclusive(Path("r.json")):
        assert evaluate("--out", "r.json") == 2
    assert "another process" in refused(capsys)


def test_two_images_with_the_same_name_are_refused(images) -> None:
    with pytest.raises(EvaluationError, match=r"b\.png: another image is also called a\.png"):
        identify([Original(images / "a.png", "a.png"), Original(images / "b.png", "a.png")])


@pytest.mark.parametrize(("value", "words"), [(-0.001, "+0.00"), (0.001, "+0.00"), (-0.006, "-0.01")])
def test_a_gap_of_nothing_has_no_sign(value: float, words: str) -> None:
    assert f"{_hundredths(value):+.2f}" == words


def test_a_report_of_one_curve_says_that_there_is_nothing_to_compare(capsys) -> None:
    assert evaluate("-o", "r.json") == 0
    capsys.readouterr()
    assert run("report", "r.json", "-o", "report") == 0
    out = capsys.readouterr().out
    assert out.startswith("Joint is the only curve; a BD-rate needs another one")
    assert "against" not in out


def test_images_may_be_several_files_and_folders(tmp_path, images) -> None:
    assert evaluate() == 0
    from_folder = json.loads(Path("evaluation/photos-small-1.json").read_text())
    assert evaluate("photos/b.png") == 0
    assert without_times(json.loads(Path("evaluation/photos-small-1.json").read_text())) == without_times(from_folder)
    more = tmp_path / "more"
    more.mkdir()
    (images / "b.png").rename(more / "c.png")
    assert run("evaluate", "--model", "small-1", "--images", "photos/a.png", more, "-o", "r.json") == 0
    assert [row["name"] for row in json.loads(Path("r.json").read_text())["images"]] == ["a.png", "c.png"]
    assert run("classical", "--codec", "jpeg", "--images", "photos/a.png", "--images", more, "-o", "jpeg.json") == 0
    command = ("report", "r.json", "jpeg.json", "-o", "report", "--show", "c")
    assert run(*command, "--images", "photos/a.png", "more/c.png", "--model", "small-1") == 0


def test_an_image_that_is_named_twice_counts_once(images) -> None:
    found = find_originals([images / "b.png", images, Path("photos/a.png")])
    assert [original.name for original in found] == ["b.png", "a.png"]
    assert find_images([images / "b.png", images]) == [images / "b.png", images / "a.png"]


def test_pictures_show_the_named_image_and_no_other(tmp_path, images) -> None:
    name = "a[1]"
    (images / "a.png").rename(images / f"{name}.png")
    (images / "b.png").rename(images / f"{name}.copy.png")
    for suffix in ("jahp", "json"):
        (images / f"{name}.{suffix}").write_text("none")
    (comparison,) = make_comparisons([], images, {name: "chosen"}, 0.25, {})
    with Image.open(images / f"{name}.png") as image:
        assert (comparison.original == image).all()
    (images / f"{name}.png").unlink()
    with pytest.raises(EvaluationError, match="has no image"):
        make_comparisons([], images, {name: "chosen"}, 0.25, {})
