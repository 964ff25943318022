"""The classical codecs with which models are compared."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jahp_pl.cli.classical import CLASSICAL
from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.classical import CODECS, encode, encode_at_least, encode_nearest
from jahp_pl.images.io import decode_rgb
from jahp_pl.report.bd_rate import bd_rate
from jahp_pl.report.read_results import read_curves
from tests.support.commands import run

ROOT = Path(__file__).parents[2]
KODAK = ROOT / "data" / "kodak"


@pytest.fixture(scope="module")
def image():
    return decode_rgb(KODAK / "kodim07.png")[:256, :320]


def error_db(a, b) -> float:
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


def test_the_command_line_offers_every_codec():
    assert tuple(CODECS) == CLASSICAL


@pytest.mark.parametrize("name", CODECS)
def test_files_of_rising_quality_grow_get_better_and_keep_the_shape(name, image):
    codec = CODECS[name]
    crop = image[:128, :161]
    steps = [codec.curve_qualities[k] for k in (1, len(codec.curve_qualities) // 2, -1)]
    assert [q for q in codec.qualities if q in codec.curve_qualities] == list(codec.curve_qualities)
    files = [encode(codec, crop, quality) for quality in steps]
    sizes, shown = [len(file.data) for file in files], [file.decode() for file in files]
    assert sizes == sorted(set(sizes))
    assert {picture.shape for picture in shown} == {crop.shape}
    errors = [error_db(crop, picture) for picture in shown]
    assert errors == sorted(errors)
    assert errors[-1] > 34


@pytest.mark.parametrize("num_bytes", [2_000, 5_000, 12_345])
def test_the_file_has_at_least_the_requested_bytes_and_one_quality_less_has_not(num_bytes, image):
    codec = CODECS["jpeg"]
    file = encode_at_least(codec, image, num_bytes)
    assert len(file.data) >= num_bytes
    assert len(codec.encode(image, file.quality - 1)) < num_bytes


@pytest.mark.parametrize("num_bytes", [1, 2_000, 5_000, 10**9])
def test_no_other_quality_comes_nearer_to_the_size(num_bytes, image):
    codec = CODECS["jpeg"]
    sizes = [len(codec.encode(image, quality)) for quality in codec.qualities]
    distance = [abs(np.log(size / num_bytes)) for size in sizes]
    size = len(encode_nearest(codec, image, num_bytes).data)
    assert abs(np.log(size / num_bytes)) <= min(distance) + 0.01


def test_a_size_beyond_the_highest_quality_gives_the_largest_file(image):
    codec = CODECS["jpeg"]
    assert encode_at_least(codec, image, 10**9).quality == codec.qualities[-1]


def test_subsampled_jpeg_is_smaller(image):
    assert len(CODECS["jpeg"].encode(image, 50)) < len(CODECS["jpeg444"].encode(image, 50))


def test_jpeg2000_decorrelates_colors(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG2000", quality_mode="rates", quality_layers=[48], irreversible=True)
    with Image.open(buffer) as picture:
        without = error_db(image, np.array(picture))
    file = encode(CODECS["jpeg2000"], image, 50)
    assert len(file.data) <= len(buffer.getvalue())
    assert error_db(image, file.decode()) > without + 1


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("hevc", "pillow_heif", "pillow-heif"),
        ("jxl", "pillow_jxl", "pillow-jxl-plugin"),
        ("vvc", "imageio_ffmpeg", "imageio-ffmpeg"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(name, module, package, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EvaluationError, match=package):
        encode(CODECS[name], np.zeros((8, 8, 3), np.uint8), CODECS[name].curve_qualities[0])
    assert run("classical", "--codec", name, "--images", KODAK, "--out", tmp_path / "r.json", "--limit", 1) == 2
    error = capsys.readouterr().err
    assert f"needs {package}, which is not installed; pip install 'jahp_pl[classical]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.json").exists()


def test_a_pillow_without_avif_is_reported_before_other_codecs_begin(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "PIL._avif", None)
    out = tmp_path / "r.json"
    assert run("classical", "--codec", "jpeg", "avif", "--images", KODAK, "--out", out, "--limit", 1) == 2
    error = capsys.readouterr().err
    assert "has no avif here" in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(("name", "shape"), [("jpeg", (2, 66000)), ("webp", (8, 17000)), ("avif", (2, 66000))])
def test_a_side_too_long_for_a_codec_is_reported_with_its_name(name, shape):
    codec, image = CODECS[name], np.zeros((*shape, 3), np.uint8)
    for work in (lambda: encode(codec, image, codec.curve_qualities[0]), lambda: encode_at_least(codec, image, 100)):
        with pytest.raises(
            EvaluationError, match=rf"^{codec.title} cannot code this image \(.+\); leave out the codec"
        ):
            work()


def test_existing_points_are_kept_and_missing_ones_are_added(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    with Image.open(KODAK / "kodim07.png") as picture:
        picture.crop((0, 0, 96, 80)).save(tmp_path / "images" / "a.png")
    out = tmp_path / "r.json"
    command = ("classical", "--codec", "jpeg", "--images", tmp_path / "images", "--out", out)
    assert run(*command) == 0
    whole = json.loads(out.read_text())
    assert [point["quality"] for point in whole["curves"][0]["points"]] == list(CODECS["jpeg"].curve_qualities)
    row = whole["curves"][0]["points"][3]["images"][0]
    assert row["file_bpp"] == pytest.approx(8 * row["file_bytes"] / (96 * 80), abs=1e-6)
    assert row["file_ms_ssim"] is None  # the image is too small

    cut = json.loads(out.read_text())
    del cut["curves"][0]["points"][5:]
    for point in cut["curves"][0]["points"]:
        point["mark"] = "kept"
    out.write_text(json.dumps(cut))
    assert run(*command) == 0
    points = json.loads(out.read_text())["curves"][0]["points"]
    assert [point.pop("mark", None) for point in points] == ["kept"] * 5 + [None] * (len(points) - 5)
    sizes = [[point["images"][0]["file_bytes"] for point in p] for p in (points, whole["curves"][0]["points"])]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("ours", "published"), [("jpeg-plain", "jpeg420-tfc"), ("jpeg2000-53", "jpeg2000-openjpeg-tfc")]
)
def test_committed_curves_are_within_three_percent_of_the_published_ones(ours, published):
    paths = [ROOT / "results" / "published" / f"{published}.json", ROOT / "results" / "classical" / f"{ours}.json"]
    theirs, mine = read_curves(paths)
    for method in ("cubic", "pchip", "akima"):
        assert abs(bd_rate(theirs.values("psnr"), mine.values("psnr"), method).percent) < 3
