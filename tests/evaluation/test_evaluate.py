"""`jahp evaluate` keeps existing results, and reports mistakes before hours of coding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jahp_pl.config import ModelConfig
from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.image_set import Original, find_images, find_originals, identify
from jahp_pl.evaluation.table import _hundredths
from jahp_pl.locks import exclusive
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import checkpoint, pretrained
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import read_fingerprint
from jahp_pl.model_io.load import load_model
from jahp_pl.model_io.pretrained import locate
from jahp_pl.report.previews import make_comparisons
from jahp_pl.report.read_results import read_curves
from tests.support.codec_models import load_golden
from tests.support.commands import run

KODAK = Path(__file__).parents[2] / "data" / "kodak"


@pytest.fixture(autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bundled single-rate models, and two variable-rate models."""
    folder = tmp_path_factory.mktemp("package") / "weights"
    for number in (1, 2):
        model = load_golden("joint")
        with torch.no_grad():
            model.g_s[-1].bias += number / 100
        export(model, folder / f"small-{number}", {"loss": {"lmbda": number / 100}})
    for name, distortion in (("variable", "mse"), ("similar", "ms_ssim")):
        export(load_golden("variable"), folder / name, {"loss": {"lmbda": 0.01, "distortion": distortion}})
    monkeypatch.setattr(pretrained, "FOLDER", folder)


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small images below the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, number in (("a", 7), ("b", 23)):
        with Image.open(KODAK / f"kodim{number:02}.png") as image:
            image.crop((100, 100, 140, 124)).save(folder / f"{name}.png")
    return folder


def evaluate(*more: object, model: object = "small-1") -> int:
    return run("evaluate", "--model", model, "--images", "photos", *more)


def evaluate_all(models: Sequence[object], *more: object) -> int:
    return run("evaluate", "--model", *models, "--images", "photos", *more)


def curves_in(out: str) -> dict[str, list[str]]:
    """Return the folders of the points of each curve, by title."""
    content = json.loads(Path(out).read_text())
    return {curve["title"]: [point["folder"] for point in curve["points"]] for curve in content["curves"]}


def save_trained(name: str, **loss: object) -> str:
    """Save a model with other weights than the others, and return its path."""
    model = load_golden("joint")
    with torch.no_grad():
        model.g_s[-1].bias += len(name)
    export(model, Path(name), {"loss": loss} if loss else {})
    return name


def without_times(content: Any) -> Any:
    """Remove the entries that differ between two calls: times, command and folder."""
    if isinstance(content, dict):
        return {
            k: without_times(v) for k, v in content.items() if k not in ("command", "folder") and "seconds" not in k
        }
    return [without_times(one) for one in content] if isinstance(content, list) else content


def files() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("jahp: ")
    assert error.count("\n") == 1
    return error


def test_two_models_on_one_folder_have_results_of_their_own() -> None:
    assert evaluate(model="small-1") == 0
    assert evaluate(model="small-2") == 0
    fingerprints = [
        json.loads(Path(f"evaluation/photos-{model}.json").read_text())["provenance"]["fingerprint"]
        for model in ("small-1", "small-2")
    ]
    assert fingerprints[0] != fingerprints[1]
    assert {f"evaluation/photos-small-{k}/{name}.jahp" for k in (1, 2) for name in "ab"} <= files()


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
        assert there == read_fingerprint(locate(model))


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
    assert "jahp: wide.png: JPEG 4:2:0 cannot code it (" in capsys.readouterr().err  # libjpeg itself says more


@pytest.mark.parametrize("name", ["r", "r.txt", "photos", "folder.json"])
def test_results_go_to_a_json_file(name, capsys) -> None:
    Path("folder.json").mkdir()
    before = files()
    assert evaluate("--out", name) == 2
    assert "must be the name of a file that ends in .json" in refused(capsys)
    assert files() == before


def test_files_never_go_among_the_images(images, capsys) -> None:
    (images / "sub").mkdir()
    (images / "a.png").rename(images / "sub" / "a.png")
    before = files()
    for out in ("photos.json", "photos/sub/../../photos.json"):
        assert evaluate("--out", out) == 2
        assert "files would be written among the images; choose another --output" in refused(capsys)
        assert files() == before
    assert run("evaluate", "--model", "small-1", "--images", "photos/b.png", "--out", "photos.json") == 2
    assert files() == before
    assert evaluate("--out", "photos/mine.json") == 0


def test_a_diverged_model_is_reported_with_the_image(capsys) -> None:
    model = CompressionModel(ModelConfig(num_filters=8, num_latents=12))
    with torch.no_grad():
        model.g_a[-1].weight.mul_(1e9)
    hyper = {"model": {"entropy_model": "joint", "num_filters": 8, "num_latents": 12}}
    state = {f"{checkpoint.MODEL}{name}": value for name, value in model.state_dict().items()}
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


def test_models_that_differ_in_lambda_form_one_curve_with_the_results_of_separate_calls(capsys) -> None:
    assert evaluate_all(("small-2", "small-1"), "--out", "both.json") == 0
    assert "curve    Joint: small-2, small-1\n" in capsys.readouterr().out
    content = json.loads(Path("both.json").read_text())
    assert curves_in("both.json") == {"Joint": ["small-2", "small-1"]}
    assert "fingerprint" not in content["provenance"]
    for point in content["curves"][0]["points"]:
        name = point["folder"]
        assert evaluate("--out", f"{name}.json", model=name) == 0
        assert without_times(point) == without_times(json.loads(Path(f"{name}.json").read_text()))
        assert {f"both/{name}/{image}.jahp" for image in "ab"} <= files()
        for image in "ab":
            assert Path(f"both/{name}/{image}.jahp").read_bytes() == Path(f"{name}/{image}.jahp").read_bytes()


def test_a_curve_of_several_models_reads_like_their_separate_results(images: Path) -> None:
    assert evaluate_all(("small-1", "small-2"), "--out", "both.json") == 0
    for name in ("small-1", "small-2"):
        assert evaluate("--out", f"apart/{name}.json", model=name) == 0
    (joined,), (apart,) = read_curves([Path("both.json")]), read_curves([Path("apart")])
    assert (joined.title, joined.values("psnr")) == (apart.title, apart.values("psnr"))
    assert [point.quality for point in joined.points] == [point.quality for point in apart.points]
    assert sorted(point.quality for point in joined.points) == ["λ = 0.01", "λ = 0.02"]
    assert run("report", "both.json", "-o", "report", "--images", images, "--model", "small-1", "small-2") == 0


def test_models_that_do_not_differ_in_lambda_form_a_curve_each() -> None:
    for models in (("small-1", save_trained("same", lmbda=0.01)), ("small-1", save_trained("unknown"))):
        assert evaluate_all(models, "--out", "r.json") == 0
        assert curves_in("r.json") == {f"Joint ({name})": [name] for name in models}
    other = save_trained("structure", lmbda=0.02, distortion="ms_ssim")
    assert evaluate_all(("small-1", other), "--out", "r.json") == 0
    assert curves_in("r.json") == {"Joint": ["small-1"], "Joint, for MS-SSIM": [other]}


def test_several_models_at_several_qualities_are_shown_together(images: Path) -> None:
    models, out = ("variable", "similar"), ("--out", "r.json")
    assert evaluate_all(models, *out, "--quality", 5, 95, "--compare", "jpeg", "--picture", "all.png") == 0
    assert evaluate("--out", "one.json", "--picture", "one.png", model="variable") == 0
    with Image.open("all.png") as of_all, Image.open("one.png") as of_one:
        assert of_all.width == 2 * of_one.width  # original, two models, JPEG; original, one model
    assert {f"r/{model}/quality-{q}/{name}.jahp" for model in models for q in (5, 95) for name in "ab"} <= files()
    (first, second) = read_curves([Path("r.json")])
    assert (first.title, second.title) == ("Joint, variable rate", "Joint, variable rate, for MS-SSIM")
    assert [point.quality for point in second.points] == ["quality 5", "quality 95"]
    assert run("report", "r.json", "--out", "report", "--images", images, "--model", *models) == 0
    assert "Joint, variable rate, for MS-SSIM" in (Path("report") / "report.html").read_text()


def test_tables_of_a_sweep_among_its_models_are_left_out_by_name(tmp_path: Path, capsys) -> None:
    for name in ("sweep.csv", "sweep.json"):
        (tmp_path / name).write_text("points")
    given = (str(tmp_path / "sweep.csv"), "small-1", str(tmp_path / "sweep.json"), "small-2")
    assert evaluate_all(given) == 0
    assert f"left out, because these are no models: {given[0]}, {given[2]}\n" in capsys.readouterr().err
    assert curves_in("evaluation/photos-small-1-small-2.json") == {"Joint": ["small-1", "small-2"]}
    assert evaluate_all((given[0],)) == 2


def test_each_model_can_name_its_curve() -> None:
    assert evaluate_all(("small-1", "small-2"), "--curve", "low", "high", "--out", "r.json") == 0
    assert [curve.title for curve in read_curves([Path("r.json")])] == ["low", "high"]


def test_models_with_one_curve_name_form_one_curve() -> None:
    models = ("small-1", save_trained("unknown"), "small-2")
    assert evaluate_all(models, "--curve", "mine", "--out", "r.json") == 0
    assert curves_in("r.json") == {"mine": list(models)}
    assert evaluate_all(models, "--curve", "mine", "other", "mine", "--out", "r.json") == 0
    assert curves_in("r.json") == {"mine": ["small-1", "small-2"], "other": ["unknown"]}


def test_results_of_several_models_have_a_name_of_their_own_and_are_not_replaced_by_others(capsys) -> None:
    assert evaluate_all(("small-1", "small-2")) == 0
    assert evaluate_all(("small-1", "small-2")) == 0
    capsys.readouterr()
    path = Path("evaluation/photos-small-1-small-2.json")
    text = path.read_text()
    other = text.replace(read_fingerprint(locate("small-2")).hex(), "0" * 16)
    path.write_text(other)
    assert evaluate_all(("small-1", "small-2")) == 2
    assert "has results of another model" in refused(capsys)
    assert path.read_text() == other


def test_an_export_takes_its_own_results_from_those_of_several_models(capsys) -> None:
    assert evaluate_all(("small-1", "small-2"), "--out", "r.json") == 0
    (curve,) = json.loads(Path("r.json").read_text())["curves"]
    for number in (1, 2):
        assert run("export", f"small-{number}", "--results", "r.json", "--out", f"copy-{number}") == 0
        mean = curve["points"][number - 1]["mean"]
        assert (
            f"| {mean['file_bpp']:.4f} | {mean['file_psnr']:.2f} dB |" in Path(f"copy-{number}/README.md").read_text()
        )
    capsys.readouterr()
    assert run("export", "variable", "--results", "r.json", "--out", "copy") == 2
    assert "has results of model" in refused(capsys)


def same_model_under_two_paths() -> tuple[str, str]:
    Path("link").symlink_to(locate("small-1"))
    return ("small-1", "link")


def two_models_of_one_name() -> tuple[str, str]:
    for number in (1, 2):
        folder = Path(f"runs-{number}")
        folder.mkdir()
        export(load_model(f"small-{number}"), folder / "final", {})
    return ("runs-1/final", "runs-2/final")


def two_models_of_one_lambda() -> tuple[str, str]:
    return ("small-1", save_trained("same", lmbda=0.01))


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        (("small-1", "small-2", "small-1"), (), "--model small-1: is the same model twice"),
        (same_model_under_two_paths, (), "--model small-1 and link: is the same model twice"),
        (two_models_of_one_name, (), "--model runs-1/final runs-2/final: both models are called final"),
        (("small-1", "nowhere"), (), "nowhere: no such export"),
        (("variable", "small-1"), ("--quality", 5, 95), "--quality: small-1 has a single rate; evaluate models of a"),
        (("small-1", "small-2"), ("--quality", 5), "--quality: small-1 has a single rate; leave it out"),
        (("variable",), ("--quality", 5, 5.0), "--quality 5: is given twice"),
        (("small-1",), ("--curve", "x", "y"), "--curve x y: must be one name, or one per model, but there are 2 for 1"),
        (two_models_of_one_lambda, ("--curve", "x"), "--curve x: small-1 and same both have lambda 0.01; give them"),
        (("small-1",), ("--picture", "../{here}/r.json"), "--picture r.json: would overwrite the results"),
        (("small-1",), ("--picture", "p.jpg"), "--picture p.jpg: must be the name of a file that ends in .png"),
    ],
)
def test_models_and_names_that_collide_are_reported_in_one_line_before_anything_is_coded(
    given: Any, more: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = given() if callable(given) else given
    before = files()
    more = tuple(str(word).replace("{here}", Path.cwd().name) for word in more)
    assert evaluate_all(chosen, *more, "--out", "r.json") == 2
    assert message in refused(capsys)
    assert files() == before


def test_an_error_of_one_of_several_models_names_it(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in images.iterdir():
        path.unlink()
    Image.new("RGB", (65520, 1)).save(images / "wide.png")
    assert evaluate_all(("small-1", "small-2"), "--out", "r.json", "--compare", "jpeg") == 2
    assert "jahp: small-1: wide.png: JPEG 4:2:0 cannot code it (" in capsys.readouterr().err
