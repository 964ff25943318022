"""BundledModel models: selected by quality to compress, by fingerprint to decompress, by name anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import jahp_pl
from jahp_pl import pillow
from jahp_pl.codec.bitstream import unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.model_io import pretrained
from jahp_pl.model_io.export import export, load_export
from jahp_pl.model_io.export_config import CONFIG_FILE, ExportError
from tests.support.codec_models import kodak_crop, load_golden, variable_model
from tests.support.commands import run

PIXELS = kodak_crop()[:60, :90]
LMBDAS = {"a-last": 0.05, "mid-1": 0.01, "z-first": 0.002}
"""Models by name; their order by quality differs from their order by name."""
NAMES = sorted(LMBDAS, key=LMBDAS.__getitem__)


def unlike(number: int) -> torch.nn.Module:
    """Create the golden model with another decoder."""
    model = load_golden("joint")
    with torch.no_grad():
        model.g_s[-1].bias += number / 100
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Three models, laid out as in jahp_pl/weights."""
    folder = tmp_path_factory.mktemp("package") / "weights"
    for number, (name, lmbda) in enumerate(LMBDAS.items()):
        export(unlike(number), folder / name, {"loss": {"lmbda": lmbda}}, dtype="bfloat16")
    return folder


@pytest.fixture(autouse=True)
def three(weights, monkeypatch):
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", weights)
    monkeypatch.setattr(pillow, "MODELS", pillow.Models())
    monkeypatch.delenv(pillow.MODEL_VARIABLE, raising=False)


@pytest.fixture
def none(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", tmp_path / "empty")


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def fingerprint_of(name: str) -> bytes:
    return load_export(pretrained.locate_model(name)).fingerprint


def made_by(path: Path) -> str:
    fingerprint = unpack(path.read_bytes())[0].fingerprint
    return next(name for name in NAMES if fingerprint_of(name) == fingerprint)


def test_single_rate_models_are_in_the_order_of_their_lambda():
    assert [model.name for model in pretrained.bundled_models()] == NAMES
    assert pretrained.default_model().name == "mid-1"


def test_a_variable_rate_model_comes_first_and_a_metric_picks_among_them(weights, tmp_path, monkeypatch):
    shutil.copytree(weights, tmp_path / "weights")
    for name, distortion in (("a-similar", "ms_ssim"), ("z-near", "mse")):
        loss = {"lmbda": 0.001, "lmbda_max": 0.1, "distortion": distortion}
        export(variable_model(), tmp_path / "weights" / name, {"loss": loss})
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", tmp_path / "weights")
    assert [model.name for model in pretrained.bundled_models()] == ["z-near", "a-similar", *NAMES]
    assert pretrained.default_model().name == "z-near"
    assert pretrained.default_model("ms-ssim").name == "a-similar"
    assert jahp_pl.load_codec(metric="psnr").num_levels == 4


def test_compress_takes_the_default_model_and_decompress_finds_it(photo):
    assert run("compress", photo) == 0
    coded = photo.with_suffix(".jahp")
    assert made_by(coded) == "mid-1"
    assert run("decompress", coded, "-o", photo.with_name("back.png")) == 0
    expected = jahp_pl.load_codec().decompress(coded.read_bytes(), as_="numpy")
    with Image.open(photo.with_name("back.png")) as image:
        assert np.array_equal(np.asarray(image), expected)


def test_files_of_several_models_in_one_folder_are_decompressed_together(photo, tmp_path):
    (tmp_path / "coded").mkdir()
    for name in NAMES:
        assert run("compress", photo, "--model", name, "-o", tmp_path / "coded" / f"{name}.jahp") == 0
    assert run("decompress", tmp_path / "coded", "-o", tmp_path / "back") == 0
    assert sorted(path.stem for path in (tmp_path / "back").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quality", "0"], "quality 0: must be from 1 (smallest files) to 100"),
        (["--quality", "4"], "this model has a single rate; quality, bpp, size and psnr need a variable-rate model"),
        (["--metric", "ms-ssim"], "no model for ms-ssim is bundled"),
        (["--metric", "psnr", "--model", "mid-1"], "--metric picks one of the bundled models; leave out"),
        (["--model", "mid-7"], "mid-7: no such export, run folder, checkpoint or bundled model (z-first, mid-1"),
        (["--model", "m" * 5000], "is not a usable path (File name too long); correct it"),
    ],
)
def test_an_unknown_model_is_reported_in_one_line(options, words, photo, capsys):
    assert run("compress", photo, *options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not photo.with_suffix(".jahp").exists()


def test_a_file_of_no_bundled_model_is_named_with_its_fingerprint(photo, tmp_path, capsys):
    codec = Codec(unlike(7))
    (tmp_path / "other.jahp").write_bytes(codec.compress(PIXELS))
    assert run("decompress", tmp_path / "other.jahp") == 2
    error = capsys.readouterr().err
    assert f"other.jahp: made with model {codec.fingerprint.hex()}, which is not bundled" in error
    assert "--model" in error
    assert error.count("\n") == 1


def test_every_command_accepts_the_name_of_a_model(photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("compress", photo, "--model", "a-last") == 0
    assert made_by(photo.with_suffix(".jahp")) == "a-last"
    assert run("evaluate", "--model", "mid-1", "--images", photo, "--out", tmp_path / "r.json") == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["provenance"]["training"] == {"loss": {"lmbda": 0.01}}
    assert run("bench", "coding", "--model", "mid-1", "--images", photo, "--rounds", 1) == 0
    assert run("export", "mid-1", "--out", tmp_path / "mine", "--results", tmp_path / "r.json") == 0
    mine = load_export(tmp_path / "mine")
    assert (mine.fingerprint, mine.dtype) == (fingerprint_of("mid-1"), "bfloat16")
    assert mine.results["bpp"] == results["mean"]["file_bpp"]
    capsys.readouterr()
    assert run("info", "mid-1") == 0
    assert mine.fingerprint.hex() in capsys.readouterr().out


def test_an_existing_path_takes_precedence_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(unlike(5), tmp_path / "mid-1", {})
    assert jahp_pl.load_codec("mid-1").fingerprint == Codec(unlike(5)).fingerprint


def test_info_without_arguments_lists_the_bundled_models_with_their_figures(weights, tmp_path, monkeypatch, capsys):
    assert run("info") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == NAMES
    assert all(fingerprint_of(name).hex() in line for name, line in zip(NAMES, lines[1:4], strict=True))
    assert "not measured" in lines[1]
    results = {"images": "Kodak", "count": 24, "bpp": 0.25, "psnr": 30.5, "ms_ssim": 0.95, "ms_ssim_db": 13.0}
    export(unlike(0), tmp_path / "weights" / "one", {}, results=results)
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", tmp_path / "weights")
    assert run("info") == 0
    out = capsys.readouterr().out
    assert "0.2500 30.50 dB   0.9500" in out
    assert out.splitlines()[1].endswith("Kodak, 24 images")


def test_the_library_loads_by_metric_and_by_name():
    assert jahp_pl.load_codec().fingerprint == fingerprint_of("mid-1")
    assert jahp_pl.load_codec(metric="psnr").fingerprint == fingerprint_of("mid-1")
    assert jahp_pl.load_codec("z-first").fingerprint == fingerprint_of("z-first")
    assert torch.equal(jahp_pl.load_model("z-first").g_s[-1].bias, unlike(2).g_s[-1].bias)
    with pytest.raises(ExportError, match="no model for ms-ssim is bundled"):
        jahp_pl.load_codec(metric="ms-ssim")
    with pytest.raises(ExportError, match="metric ms_ssim: must be one of psnr, ms-ssim"):
        jahp_pl.load_codec(metric="ms_ssim")
    with pytest.raises(ExportError, match="leave out metric or model"):
        jahp_pl.load_model("mid-1", metric="psnr")


@pytest.mark.parametrize(
    ("options", "name"), [({}, "mid-1"), ({"metric": "psnr"}, "mid-1"), ({"model": "z-first"}, "z-first")]
)
def test_pillow_saves_and_loads_with_no_model_registered(options, name, tmp_path, monkeypatch):
    path = tmp_path / "photo.jahp"
    Image.fromarray(PIXELS).save(path, **options)
    assert made_by(path) == name
    monkeypatch.setattr(pillow, "MODELS", pillow.Models())
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), jahp_pl.load_codec(name).decompress(path.read_bytes(), as_="numpy"))


def test_pillow_refuses_a_metric_beside_a_model_and_a_quality_of_a_single_rate(tmp_path):
    image = Image.fromarray(PIXELS)
    with pytest.raises(OSError, match=r"photo\.jahp: metric= picks one of the bundled models"):
        image.save(tmp_path / "photo.jahp", metric="psnr", model="mid-1")
    with pytest.raises(OSError, match=r"photo\.jahp: this model has a single rate"):
        image.save(tmp_path / "photo.jahp", quality=95)


@pytest.mark.usefixtures("none")
def test_without_bundled_models_each_use_says_that_one_must_be_given(photo, capsys):
    for command in (["compress", photo, "-o", "-"], ["decompress", photo.with_suffix(".jahp")]):
        photo.with_suffix(".jahp").write_bytes(Codec(unlike(0)).compress(PIXELS))
        assert run(*command) == 2
        error = capsys.readouterr().err
        assert "no models are bundled with this jahp_pl; give one" in error
        assert error.count("\n") == 1
    assert run("info") == 0
    assert "no models are bundled" in capsys.readouterr().out
    with pytest.raises(ExportError, match="no models are bundled"):
        jahp_pl.load_codec()
    with pytest.raises(OSError, match="no models are bundled"):
        Image.fromarray(PIXELS).save(photo.with_name("x.jahp"))
    with (
        Image.open(photo.with_suffix(".jahp")) as image,
        pytest.raises(OSError, match="neither registered nor"),
    ):
        image.load()


def test_a_damaged_bundled_model_is_named(tmp_path, monkeypatch, capsys):
    export(unlike(0), tmp_path / "weights" / "one", {})
    (tmp_path / "weights" / "one" / CONFIG_FILE).write_text("{}")
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", tmp_path / "weights")
    assert run("info") == 2
    assert "one/config.json: does not belong to a jahp_pl export" in capsys.readouterr().err


def test_the_bundled_models_are_complete():
    """Each bundled model loads and states its results on Kodak, in which better quality takes more bits."""
    folders = sorted((Path(jahp_pl.__file__).parent / "weights").glob("*/"))
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) <= 27e6  # two models of 13.4 MB
    found = {folder: load_export(folder) for folder in folders}
    assert all((content.results["images"], content.results["count"]) == ("Kodak", 24) for content in found.values())
    for content in found.values():
        figures = [(point["bpp"], point["psnr"]) for point in content.results.get("points") or [content.results]]
        assert figures == sorted(figures)
        assert [psnr for _, psnr in figures] == sorted(psnr for _, psnr in figures)
    for folder in folders:
        codec = jahp_pl.load_codec(folder)
        data = codec.compress(PIXELS)
        assert codec.decompress(data).shape == (3, 60, 90)
