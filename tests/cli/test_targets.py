"""`jahp compress` meets a target or refuses it in one line, and `jahp evaluate` draws a curve of several qualities."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.codec.bitstream import unpack
from jahp_pl.model_io.export import export
from jahp_pl.model_io.load import load_codec
from tests.support.codec_models import kodak_crop, variable_model
from tests.support.commands import run
from tests.support.profiles import DISPLAY_P3

IMAGE = kodak_crop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export of a variable-rate model."""
    folder = tmp_path_factory.mktemp("models") / "variable"
    export(variable_model(), folder, {"loss": {"lmbda": 0.002, "lmbda_max": 0.1}}, dtype="int8")
    return folder


def test_the_command_line_accepts_each_target(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    codec, source, coded = load_codec(model), tmp_path / "photo.png", tmp_path / "photo.jahp"
    for options, expected in (
        ([], codec.compress(IMAGE)),
        (["--quality", 90], codec.compress(IMAGE, quality=90)),
        (["--size", "2k"], codec.compress(IMAGE, size=2000)),
        (["--bpp", 0.15], codec.compress(IMAGE, bpp=0.15)),
        (["--psnr", 19], codec.compress(IMAGE, psnr=19)),
    ):
        assert run("compress", source, "--model", model, "--force", "--verify", *options) == 0
        assert coded.read_bytes() == expected
    *others, by_psnr = capsys.readouterr().out.splitlines()
    assert "; quality " in others[0]
    assert not any("PSNR" in line for line in others)
    assert "; PSNR 19." in by_psnr
    assert run("info", coded) == 0
    assert "level  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], ["--quality", 61]),
        (["--quality", 30], []),
        (["--size", "2k"], ["--size", "3k"]),
        (["--size", "2k"], ["--size", 1900]),
        (["--bpp", 0.15], ["--bpp", 0.17]),
        (["--bpp", 0.15], ["--quality", 60]),
    ],
)
def test_a_rerun_with_another_target_does_not_count_files_as_done(
    first: list[object], second: list[object], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    command = ["compress", tmp_path, "--model", model]
    assert run(*command, *first) == 0
    data = (tmp_path / "photo.jahp").read_bytes()
    capsys.readouterr()
    assert run(*command, *first) == 0
    assert "1 of 1 was done already; --force" in capsys.readouterr().out
    assert run(*command, *second) == 2
    assert "was not made by this model with these options; --force overwrites it" in capsys.readouterr().err
    assert (tmp_path / "photo.jahp").read_bytes() == data
    assert run(*command, *second, "--force") == 0
    assert (tmp_path / "photo.jahp").read_bytes() != data


def test_options_that_a_file_does_not_show_are_named_when_finished_files_are_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE[:64, :96]).save(tmp_path / "photo.png")
    assert run("compress", tmp_path, "--model", model, "--psnr", 17) == 0
    capsys.readouterr()
    assert run("compress", tmp_path, "--model", model, "--psnr", 19, "--effort", 0) == 0
    assert "perhaps with another --effort or --psnr, which a file does not show; --force" in capsys.readouterr().out


def test_the_largest_size_counts_the_color_profile(model: Path, tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "wide.png", icc_profile=DISPLAY_P3)
    assert run("compress", tmp_path / "wide.png", "--model", model, "--size", 3000) == 0
    data = (tmp_path / "wide.jahp").read_bytes()
    assert unpack(data)[0].icc == DISPLAY_P3
    assert 2900 < len(data) <= 3000


@pytest.mark.parametrize("options", [["--quality", 50, "--size", "4k"], ["--size", "big"], ["--quality", 300]])
def test_the_command_line_refuses_in_one_line(
    options: list[object], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    assert run("compress", tmp_path / "photo.png", "--model", model, *options) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "photo.jahp").exists()


def test_evaluate_makes_one_curve_from_several_qualities(model: Path, tmp_path: Path) -> None:
    Image.fromarray(IMAGE[:64, :96]).save(tmp_path / "photo.png")
    out = tmp_path / "r.json"
    command = ["evaluate", "--model", model, "--images", tmp_path / "photo.png", "--out", out]
    assert run(*command, "--quality", 5, 60, 95) == 0
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["quality-5", "quality-60", "quality-95"]
    assert run("report", out, "--out", tmp_path / "report") == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Joint, variable rate" in page
    assert run(*command, "--quality", 5, 60, 95) == 0  # results of the same model may be replaced
    exported = tmp_path / "with-results"
    assert run("export", model, "--out", exported, "--results", out) == 0
    assert "| 60 |" in (exported / "README.md").read_text()
