"""The options, names, help and messages that all commands share, and a photograph that goes through three of them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.cli.command_line import _parser
from jahp_pl.model_io import checkpoint
from jahp_pl.training import run as training
from tests.support import ROOT
from tests.support.commands import run

COMMANDS = (
    *("shards", "train", "evaluate", "classical", "report", "compress", "decompress", "info", "export"),
    "export-graphs",
    "import-compressai",
    "sweep",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, capsys):
    assert run(command, "--help") == 0
    assert f"jahp {command}" in capsys.readouterr().out.split("examples:")[1]


def test_a_former_name_of_a_command_works_and_is_not_shown(capsys):
    assert run("graphs", "--help") == 0
    assert "jahp export-graphs models/mbt2018" in capsys.readouterr().out
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert "\n    export-graphs " in shown
    assert "\n    graphs " not in shown


def test_a_photograph_survives_compress_info_decompress(model_file, photo, capsys):
    assert run("compress", photo, "--model", model_file) == 0
    compressed = photo.with_suffix(".jahp")
    assert run("info", compressed) == 0
    assert "217 x 181 pixels" in capsys.readouterr().out
    back = photo.with_name("back.png")
    assert run("decompress", compressed, "-o", back, "--model", model_file) == 0
    with Image.open(back) as decoded:
        pixels = np.asarray(decoded)
    model = checkpoint.load_checkpoint_model(model_file)
    with Image.open(photo) as image:
        x = torch.from_numpy(np.array(image)).movedim(-1, 0)[None] / 255
    with torch.no_grad():
        expected = torch.round(model(x).x_hat[0].clamp(0, 1) * 255)
    assert np.array_equal(pixels, expected.movedim(0, -1).byte().numpy())


def test_keys_lists_every_setting_with_its_meaning(capsys):
    assert run("train", "--keys") == 0
    out = capsys.readouterr().out
    assert "loss.lmbda" in out
    assert "the weight of D" in out


def test_the_next_command_after_a_training_can_be_pasted(monkeypatch, capsys):
    result = SimpleNamespace(run_dir=Path("runs/a b"), was_finished=False)
    monkeypatch.setattr(training, "train", lambda *_, **__: result)
    assert run("train", "name=a b") == 0
    assert capsys.readouterr().out == (
        "trained: runs/a b  (next: jahp evaluate --model 'runs/a b' --images data/kodak)\n"
    )


def test_the_version_is_printed(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"jahp {version('jahp_pl')}"


def test_quiet_prints_errors_only(model_file, photo, capsys):
    assert run("compress", photo, "--model", model_file, "-q") == 0
    assert run("decompress", photo.with_suffix(".jahp"), "--model", model_file, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run("compress", photo, "--model", model_file, "-q") == 2
    assert "exists" in capsys.readouterr().err
    assert run("info", photo.with_suffix(".jahp")) == 0
    assert "217 x 181" in capsys.readouterr().out


def test_verbose_shows_where_an_error_happened(capsys):
    assert run("info", "nowhere", "-v") == 2
    output = capsys.readouterr().err
    assert "Traceback" in output
    assert output.strip().splitlines()[-1].startswith("jahp: ")


def test_one_spelling_holds_for_all_commands_and_the_former_ones_still_work(tmp_path, monkeypatch, capsys):
    photos = str(ROOT / "data" / "photos" / "val" / "dogs.jpg")
    monkeypatch.chdir(tmp_path)
    for options in (["-o", "s"], ["--output", "s", "-f"], ["--out", "s", "--force"], ["--out", "s", "--overwrite"]):
        assert run("shards", photos, *options) == 0
    assert run("shards", photos, "-o", "s") == 2
    parser = _parser()
    for arguments in (
        ["compress", "a", "-f", "-o", "x"],
        ["decompress", "a", "-f", "-o", "x"],
        ["evaluate", "--model", "m", "--images", "i", "-o", "x"],
        ["classical", "--codec", "jpeg", "--images", "i", "-f", "-o", "x"],
        ["report", "r", "-o", "x"],
        ["export", "m", "-f", "-o", "x"],
        ["export-graphs", "m", "-f", "-o", "x"],
        ["import-compressai", "c", "-f", "-o", "x"],
        ["bench", "coding", "--model", "m", "--images", "i", "-o", "x"],
        ["bench", "train", "-o", "x"],
        ["bench", "data", "--images", "i", "-o", "x"],
    ):
        assert parser.parse_args(arguments).output == Path("x")
        former = ["--out" if word == "-o" else word for word in arguments]
        assert parser.parse_args(former).output == Path("x")


def test_auto_finds_a_usable_device(model_file, photo):
    assert run("compress", photo, "--model", model_file, "--device", "auto") == 0


def test_a_shell_completes_commands_and_options(tmp_path):
    pytest.importorskip("argcomplete")
    for line, expected in (("jahp compr", "compress"), ("jahp compress --ver", "--verify")):
        answer = tmp_path / "answer"
        environment = {
            **os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n",
        }  # fmt: skip
        subprocess.run([sys.executable, "-m", "jahp_pl"], env=environment, check=False, timeout=60)
        assert expected in [word.strip() for word in answer.read_text().splitlines()]
