"""`jahp classical` continues a results file and never loses what it contains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.classical import CODECS
from jahp_pl.evaluation.classical_curves import measure_curves
from jahp_pl.evaluation.image_set import find_originals
from jahp_pl.files.locks import exclusive
from tests.support.commands import run

ROOT = Path(__file__).parents[2]
KODAK = ROOT / "data" / "kodak"
LADDER = list(CODECS["jpeg"].curve_qualities)
FACTS = {"date": "2000-01-01", "versions": {"pillow": "1"}, "command": "jahp classical"}


def crop(path: Path, number: int, width: int = 40, height: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(KODAK / f"kodim{number:02}.png") as image:
        image.crop((100, 100, 100 + width, 100 + height)).save(path)


def crops(folder: Path, first: int, second: int) -> Path:
    crop(folder / "a.png", first)
    crop(folder / "sub" / "b.png", second)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return crops(tmp_path / "images", 7, 23)


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Other images with the same names and sizes."""
    return crops(tmp_path / "others", 8, 15)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "r.json"


def classical(images: Path, out: Path, *more: object) -> int:
    return run("classical", "--codec", "jpeg", "--images", images, "--out", out, *more)


def read(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def mark(out: Path, part: str = "curves") -> None:
    """Mark every point, to distinguish it from points that are measured later."""
    content = read(out)
    for curve in content[part]:
        for point in curve["points"]:
            point["mark"] = True
    out.write_text(json.dumps(content))


def marks(curve: dict[str, Any]) -> list[bool]:
    return ["mark" in point for point in curve["points"]]


def interrupted(images: Path, out: Path, after: int, force: bool, names: tuple[str, ...] = ("jpeg",)) -> None:
    """Interrupt a call after a number of points, as Ctrl+C would."""
    points = []

    def progress(*point: object) -> None:
        points.append(point)
        if len(points) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_curves(names, find_originals(images), out, FACTS, force, progress)


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("jahp: ")
    assert error.count("\n") == 1
    return error


def test_rows_have_image_names_relative_to_the_folder_and_pixels(images: Path, out: Path) -> None:
    assert classical(images, out) == 0
    points = read(out)["curves"][0]["points"]
    assert [row["name"] for row in points[0]["images"]] == ["a.png", "sub/b.png"]
    hashes = {tuple(row["pixels"] for row in point["images"]) for point in points}
    assert len(hashes) == 1
    assert [len(pixels) for pixels in hashes.pop()] == [16, 16]
    assert "pixels" not in points[0]["mean"]
    model = out.with_name("m.json")
    assert run("evaluate", "--model", "joint-psnr", "--images", images, "--out", model) == 0
    rows = [{key: row[key] for key in ("name", "width", "height", "pixels")} for row in read(model)["images"]]
    assert rows == [{key: row[key] for key in rows[0]} for row in points[0]["images"]]


def test_other_images_with_the_same_names_are_reported_before_anything_is_coded(images, others, out, capsys) -> None:
    assert classical(images, out) == 0
    before = out.read_bytes()
    assert classical(others, out) == 2
    assert f"{out}: has results of 2 other images; choose another --output, or replace them with --force" in refused(
        capsys
    )
    assert out.read_bytes() == before


def test_fewer_images_are_other_images(images, out, capsys) -> None:
    assert classical(images, out) == 0
    before = out.read_bytes()
    assert classical(images, out, "--limit", 1) == 2
    assert "2 other images" in refused(capsys)
    assert out.read_bytes() == before


def test_rows_of_earlier_versions_are_known_by_their_sizes(images, out, capsys) -> None:
    assert classical(images, out) == 0
    mark(out)
    content = read(out)
    for point in content["curves"][0]["points"]:
        for row in point["images"]:
            del row["pixels"]
    out.write_text(json.dumps(content))
    assert classical(images, out) == 0
    assert all(marks(read(out)["curves"][0]))
    crop(images / "a.png", 7, width=41)
    assert classical(images, out) == 2
    assert "other images" in refused(capsys)


def test_committed_results_are_of_the_images_in_the_repository(out) -> None:
    out.parent.mkdir()
    for name in ("jpeg", "avif"):
        shutil.copy(ROOT / "results" / "classical" / f"{name}.json", out)
        before = out.read_bytes()
        measure_curves([], find_originals(KODAK), out, FACTS)
        assert out.read_bytes() == before
    with pytest.raises(EvaluationError, match="24 other images with avif"):
        measure_curves([], find_originals(KODAK, 3), out, FACTS)


@pytest.mark.parametrize("change", ["force", "settings", "images"])
def test_a_curve_stays_until_all_that_replaces_it_is_done(change, images, others, out) -> None:
    assert classical(images, out) == 0
    mark(out)
    if change == "settings":
        content = read(out)
        content["curves"][0]["settings"] = "an earlier version"
        out.write_text(json.dumps(content))
    old = read(out)["curves"]
    now, force = (others if change == "images" else images), change != "settings"
    interrupted(now, out, 3, force)
    assert read(out)["curves"] == old
    assert [len(curve["points"]) for curve in read(out)["unfinished"]] == [3]

    mark(out, "unfinished")
    measure_curves(("jpeg",), find_originals(now), out, FACTS, force)
    content = read(out)
    assert list(content) == ["curves"]
    assert [point["quality"] for point in content["curves"][0]["points"]] == LADDER
    assert marks(content["curves"][0]) == [True] * 3 + [False] * (len(LADDER) - 3)


def test_curves_that_replace_others_take_their_places_together(images, others, out) -> None:
    both = ("jpeg", "webp")
    measure_curves(both, find_originals(images), out, FACTS)
    old = read(out)["curves"]
    interrupted(others, out, len(LADDER) + 2, force=True, names=both)
    assert read(out)["curves"] == old
    measure_curves(both, find_originals(others), out, FACTS, force=True)
    assert [curve["name"] for curve in read(out)["curves"]] == list(both)
    rows = [[row["pixels"] for row in curve["points"][0]["images"]] for curve in read(out)["curves"]]
    assert rows[0] == rows[1]
    assert rows[0] != [row["pixels"] for row in old[0]["points"][0]["images"]]


def test_another_version_does_not_continue_unfinished_results(images, out) -> None:
    assert classical(images, out) == 0
    interrupted(images, out, 3, force=True)
    mark(out, "unfinished")
    measure_curves(("jpeg",), find_originals(images), out, FACTS | {"versions": {"pillow": "2"}}, force=True)
    assert not any(marks(read(out)["curves"][0]))


def test_an_interrupted_first_run_is_continued(images, out) -> None:
    interrupted(images, out, 3, force=False)
    assert [point["quality"] for point in read(out)["curves"][0]["points"]] == LADDER[:3]
    mark(out)
    measure_curves(("jpeg",), find_originals(images), out, FACTS)
    assert marks(read(out)["curves"][0]) == [True] * 3 + [False] * (len(LADDER) - 3)


def test_force_replaces_no_curve_of_a_codec_that_was_not_named(images, others, out, capsys) -> None:
    assert run("classical", "--codec", "webp", "--images", images, "--out", out) == 0
    before = out.read_bytes()
    assert classical(others, out, "--force") == 2
    assert "2 other images with webp; choose another --output, or give these codecs too and --force" in refused(capsys)
    assert out.read_bytes() == before
    assert classical(images, out, "--force") == 0
    assert [curve["name"] for curve in read(out)["curves"]] == ["webp", "jpeg"]


def test_two_processes_do_not_write_one_file(images, out, capsys) -> None:
    with exclusive(out):
        assert classical(images, out) == 2
    assert "another process" in refused(capsys)
    assert classical(images, out) == 0
    assert [path.name for path in out.parent.iterdir()] == ["r.json"]


FOREIGN = {
    "cut short": ('{"curves": [{"na', "is not JSON"),
    "empty": ("", "is not JSON"),
    "not text": ("\0\x7f", "is not JSON"),
    "something else": ('{"a": 1}', "has no results of `jahp classical`"),
    "a list": ("[1]", "has no results of `jahp classical`"),
    "a curve without points": ('{"curves": [{"title": "x"}]}', "has no results of `jahp classical`"),
    "points without images": (
        '{"curves": [{"name": "jpeg", "provenance": {}, "points": [{"quality": 1}]}]}',
        "has no results of `jahp classical`",
    ),
    "a rate that no float can hold": (
        '{"curves": [{"name": "jpeg", "provenance": {}, "points": [{"quality": 1, "images": [], "mean": '
        f'{{"file_bpp": 1{"0" * 400}, "file_psnr": 1}}}}]}}]}}',
        "has no results of `jahp classical`",
    ),
    "an evaluation": ('{"mean": {}, "images": [], "provenance": {}}', "has no results of `jahp classical`"),
}


@pytest.mark.parametrize(("content", "complaint"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_something_else_is_left_alone(content, complaint, images, out, capsys) -> None:
    out.parent.mkdir()
    out.write_text(content)
    assert classical(images, out) == 2
    error = refused(capsys)
    assert f"{out}: {complaint}" in error
    assert error.endswith("move it away, or choose another --output\n")
    assert out.read_text() == content


@pytest.mark.parametrize("name", ["r", "r.txt", "folder.json"])
def test_results_go_to_a_json_file(name, images, tmp_path, capsys) -> None:
    (tmp_path / "folder.json").mkdir()
    assert classical(images, tmp_path / name) == 2
    assert "must be the name of a file that ends in .json" in refused(capsys)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", [("classical", "--codec", "jpeg"), ("evaluate", "--model", "joint-psnr")])
@pytest.mark.parametrize("limit", ["0", "-1", "two"])
def test_a_limit_is_a_whole_number_from_one(command, limit, images, out, capsys) -> None:
    assert run(*command, "--images", images, "--out", out, f"--limit={limit}") == 2
    assert "must be a whole number of at least 1" in capsys.readouterr().err
    assert not out.exists()


def test_an_image_that_a_codec_cannot_code_is_named_and_other_codecs_stay(images, out, capsys) -> None:
    Image.new("RGB", (17000, 8)).save(images / "wide.png")
    assert classical(images, out, "--codec", "jpeg", "webp") == 2
    error = refused(capsys)
    assert "wide.png: WebP cannot code this image (" in error
    assert "16383" in error
    assert error.endswith("; leave out the codec or the image\n")
    assert [len(curve["points"]) for curve in read(out)["curves"]] == [len(LADDER)]


def test_an_unreadable_image_is_reported_before_anything_is_coded(images, out, capsys) -> None:
    whole = (images / "sub" / "b.png").read_bytes()
    (images / "sub" / "b.png").write_bytes(whole[: len(whole) // 2])
    assert classical(images, out) == 2
    assert "b.png: damaged" in refused(capsys)
    assert not out.exists()
