"""`jahp evaluate` with several models joins them to curves, and reports names that collide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import read_fingerprint
from jahp_pl.model_io.load import load_model
from jahp_pl.model_io.pretrained import locate_model
from jahp_pl.report.read_results import read_curves
from tests.support.codec_models import load_golden
from tests.support.commands import run
from tests.support.evaluating import evaluate, evaluate_all, files_here, refused, without_times

pytestmark = pytest.mark.usefixtures("models", "images")


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
        assert {f"both/{name}/{image}.jahp" for image in "ab"} <= files_here()
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


def test_one_model_at_several_qualities_is_shown_beside_the_classical_codec(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate_all(("variable",), "--out", "v.json", "--quality", 5, 95, "--compare", "jpeg") == 0
    out = capsys.readouterr().out
    head, _, first, last, *rest = out.splitlines()
    assert head.startswith("quality   level     bpp    PSNR MS-SSIM | JPEG 4:2:0: bpp    PSNR MS-SSIM |  gap %")
    for line, point in zip((first, last), json.loads(Path("v.json").read_text())["curves"][0]["points"], strict=True):
        assert len(line) == len(head)
        assert line.split("|")[1].split()[0] == f"{point['beside_mean']['bpp']:.4f}"
    too_small = point["mean"]["file_ms_ssim"] is None
    assert ("MS-SSIM: only of images with sides of at least 176 pixels" in rest) == too_small


def test_several_models_at_several_qualities_are_shown_together(images: Path) -> None:
    models, out = ("variable", "similar"), ("--out", "r.json")
    assert evaluate_all(models, *out, "--quality", 5, 95, "--compare", "jpeg", "--picture", "all.png") == 0
    assert evaluate("--out", "one.json", "--picture", "one.png", model="variable") == 0
    with Image.open("all.png") as of_all, Image.open("one.png") as of_one:
        assert of_all.width == 2 * of_one.width  # original, two models, JPEG; original, one model
    assert {f"r/{model}/quality-{q}/{name}.jahp" for model in models for q in (5, 95) for name in "ab"} <= files_here()
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
    assert f"left out, because these are not models: {given[0]}, {given[2]}\n" in capsys.readouterr().err
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
    other = text.replace(read_fingerprint(locate_model("small-2")).hex(), "0" * 16)
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
    Path("link").symlink_to(locate_model("small-1"))
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
    before = files_here()
    more = tuple(str(word).replace("{here}", Path.cwd().name) for word in more)
    assert evaluate_all(chosen, *more, "--out", "r.json") == 2
    assert message in refused(capsys)
    assert files_here() == before


def test_an_error_of_one_of_several_models_names_it(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in images.iterdir():
        path.unlink()
    Image.new("RGB", (65520, 1)).save(images / "wide.png")
    assert evaluate_all(("small-1", "small-2"), "--out", "r.json", "--compare", "jpeg") == 2
    assert "jahp: small-1: wide.png: JPEG 4:2:0 cannot code this image (" in capsys.readouterr().err
