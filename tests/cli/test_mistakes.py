"""Every mistake on the command line is reported in one line, with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.cli.main import main
from tests.support import ROOT
from tests.support.commands import run


def test_an_input_of_another_kind_is_reported_before_its_output(photo, tmp_path, capsys):
    photo.with_suffix(".decoded.png").write_bytes(b"in the way")
    assert run("decompress", photo) == 2
    assert "photo.png: not a .jahp file" in capsys.readouterr().err
    assert run("decompress", photo, "-o", photo) == 2
    assert "photo.png: not a .jahp file" in capsys.readouterr().err
    compressed = photo.with_suffix(".jahp")
    compressed.write_bytes(b"jahp")
    assert run("compress", compressed) == 2
    assert "photo.jahp: is already a .jahp file" in capsys.readouterr().err
    (tmp_path / "photo.txt").write_text("no image")
    assert run("compress", tmp_path / "photo.txt") == 2
    assert "photo.txt: not an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--min-side", "0"], "--min-side 0: must be at least 1"),
        (["--min-side", "-5"], "--min-side -5: must be at least 1"),
        (["--min-side", "9999"], "1 with a side under --min-side 9999, 0 over --max-pixels 67108864"),
        (["--max-side", "100"], "--max-side 100: must be at least --min-side 256"),
        (["--tile", "100"], "--tile 100: must be at least 512"),
        (["--quality", "101"], "--quality 101: must be"),
        (["--shard-samples", "0"], "--shard-samples 0: must be"),
    ],
)
def test_messages_about_shards_name_options_as_they_are_given(options, named, photo, capsys):
    assert run("shards", photo, "-o", photo.with_name("shards"), *options) == 2
    assert named in capsys.readouterr().err


def test_a_compressed_file_does_not_get_the_suffix_of_an_image(photo, capsys):
    target = photo.with_name("out.webp")
    assert run("compress", photo, "-o", target) == 2
    assert "out.webp: would be a .jahp file, not a webp image; end its name in .jahp" in capsys.readouterr().err
    assert not target.exists()


MISTAKES = {
    "unknown key": (["train", "model.depth=3"], "model.depth"),
    "wrong type": (["train", "data.batch_size=many"], "data.batch_size"),
    "missing config": (["train", "nowhere.yaml"], "nowhere.yaml"),
    "two targets": (
        ["compress", "a.png", "--quality", "40", "--bpp", "0.3"],
        "--bpp: cannot be combined with --quality; give only one",
    ),
    "no shards": (["train", "data.train=[nowhere/]"], "nowhere"),
    "missing model": (["info", "nowhere"], "nowhere"),
    "missing file": (["info", "nowhere.jahp"], "nowhere.jahp: no such file; check the path"),
    "no images": (["evaluate", "--model", "m.ckpt", "--images", "nowhere"], "nowhere"),
    "missing run": (["export", "nowhere", "--out", "o"], "nowhere"),
    "missing CompressAI checkpoint": (["import-compressai", "nowhere.pth", "--out", "o"], "nowhere.pth"),
    "missing image": (["compress", "nowhere.png", "--model", "m.ckpt"], "nowhere.png"),
    "no photographs": (["shards", "nowhere", "--out", "o"], "nowhere"),
    "foreign checkpoint": (["info", str(ROOT / "README.md")], "README.md"),
}


@pytest.mark.parametrize(("arguments", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_one_line(arguments, named, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("jahp: ")
    assert "\n" not in error
    assert named in error


def test_outputs_that_exist_are_kept_unless_forced(model_file, photo, capsys):
    target = photo.with_suffix(".jahp")
    target.write_bytes(b"precious")
    assert run("compress", photo, "--model", model_file) == 2
    assert "choose another output" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert run("compress", photo, "--model", model_file, "--force") == 0
    assert target.read_bytes()[:4] == b"jahp"


def test_two_inputs_with_the_same_name_are_refused_before_either_is_lost(model_file, photo, tmp_path, capsys):
    other = tmp_path / "sub" / "photo.png"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    assert run("compress", photo, other, "-o", tmp_path / "out", "--model", model_file) == 2
    assert "have the same output" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused_and_leaves_no_picture(model_file, photo, capsys):
    run("compress", photo, "--model", model_file)
    compressed = photo.with_suffix(".jahp")
    data = bytearray(compressed.read_bytes())
    data[-1] ^= 1
    compressed.write_bytes(data)
    back = photo.with_name("back.png")
    assert run("decompress", compressed, "-o", back, "--model", model_file) == 2
    assert "damaged" in capsys.readouterr().err
    assert not back.exists()


def test_an_unknown_suffix_of_an_output_is_refused(model_file, photo, capsys):
    run("compress", photo, "--model", model_file)
    status = run("decompress", photo.with_suffix(".jahp"), "-o", photo.with_name("x.nope"), "--model", model_file)
    assert status == 2
    assert ".nope" in capsys.readouterr().err


SETTINGS = "CONFIG.yaml key=value`? Configs and settings have no dashes"


QUIET = "jahp: -q means --quiet; for a quality of 80, give --quality 80; see `jahp compress --help`"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["compres", "a.png"], "did you mean compress?"),
        (["compress", "a.png", "--qualty", "5"], "did you mean --quality?"),
        (["decompress", "a.jahp", "--fource"], "did you mean --force?"),
        (["compress", "a.png", "--metric", "pnsr"], "did you mean psnr?"),
        (["bench", "codng"], "did you mean coding?"),
        (["compress", "a.png", "-q", "80"], QUIET),
        (["compress", "-q", "80", "a.png"], QUIET),
        (["train", "--config", "x.yaml"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "-c", "x.yaml", "name=a"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "x.yaml", "--lr", "1"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "--loss.lmbda=0.01"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "--quit", "x.yaml"], "did you mean --quiet?"),
        (["sweep", "x.yaml", "--config", "y.yaml"], f"did you mean `jahp sweep {SETTINGS}"),
    ],
)
def test_a_typo_is_answered_with_a_suggestion(arguments, meant, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.strip().endswith(meant)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "jahp: the following arguments are required: COMMAND; see `jahp --help`"),
        (["shards", "a"], "jahp: the following arguments are required: -o/--output; see `jahp shards --help`"),
        (
            ["compress", "a.png", "--size", "x"],
            "jahp: --size: x: must be a size in bytes, e.g. 40000, 50k, 50kB or 1.5M",
        ),
        (["compress", "a.png", "--memory", "9" * 5000], f"jahp: --memory: {'9' * 77}...: must be a whole number"),
    ],
)
def test_unusable_arguments_are_reported_in_one_line(arguments, expected, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(expected)
    assert error.count("\n") == 1


def test_a_module_that_cannot_be_imported_is_named_by_its_option(capsys):
    assert run("info", "--import", "nowhere.py") == 2
    assert capsys.readouterr().err.startswith("jahp: --import nowhere.py: cannot be imported")


def test_a_module_that_exits_is_named_by_its_option(tmp_path, capsys):
    (tmp_path / "script.py").write_text("import sys; sys.exit(3)\n")
    assert run("info", "joint-psnr", "--import", tmp_path / "script.py") == 2
    assert "script.py: cannot be imported (SystemExit: 3)" in capsys.readouterr().err


def test_a_file_whose_name_begins_with_a_dash_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-photo.png").touch()
    monkeypatch.setattr("sys.argv", ["jahp", "compress", "-photo.png"])
    with pytest.raises(SystemExit):
        main()
    assert "if -photo.png is meant as a file, write ./-photo.png" in capsys.readouterr().err


def test_an_output_given_as_a_second_input_is_explained(photo, capsys):
    assert run("compress", photo, photo.with_name("out.jahp")) == 2
    assert "if it is meant as the output, write -o" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--threads", "99999999"], "--threads: 99999999: must be at most 1024"),
        (["--device", "meta"], "--device meta: cannot be used"),
        (["--device", ""], "--device : cannot be used"),
    ],
)
def test_impossible_threads_and_devices_are_refused(
    option: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert run("compress", tmp_path / "a.png", *option) == 2
    assert words in capsys.readouterr().err
