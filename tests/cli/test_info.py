"""`jahp info` describes files, models and folders, and says what it cannot read."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys

import pytest

from jahp_pl.model_io import pretrained
from tests.support.commands import run


def test_info_describes_a_checkpoint(model_file, capsys):
    assert run("info", model_file) == 0
    out = capsys.readouterr().out
    assert "joint" in out
    assert "fingerprint" in out


def test_info_describes_all_below_a_folder_and_names_what_it_cannot_read(model_file, photo, capsys):
    run("compress", photo, "--model", model_file)
    folder = photo.parent
    (folder / "run").mkdir()
    (folder / "run" / "best.ckpt").write_bytes(model_file.read_bytes())
    capsys.readouterr()
    assert run("info", folder) == 0
    out = capsys.readouterr().out
    assert "217 x 181 pixels" in out
    assert "num_latents     24" in out
    (folder / "bad.jahp").write_bytes(b"jahp")
    assert run("info", folder) == 2
    output = capsys.readouterr()
    assert "217 x 181 pixels" in output.out
    assert "bad.jahp: the file is cut short" in output.err


def test_info_describes_the_other_paths_when_one_cannot_be_described(model_file, photo, tmp_path, capsys):
    run("compress", photo, "--model", model_file)
    capsys.readouterr()
    assert run("info", photo, tmp_path / "none.jahp", photo.with_suffix(".jahp")) == 2
    output = capsys.readouterr()
    assert output.out.startswith(f"{photo.with_suffix('.jahp')}\nimage           217 x 181 pixels\n")
    assert "photo.png: is an image, not a .jahp file" in output.err
    assert "none.jahp: no such file" in output.err
    assert "2 of 3 failed" in output.err


def test_info_follows_no_links_to_folders(tmp_path, capsys):
    for name in ("a", "b", "c"):
        (tmp_path / name).symlink_to(tmp_path)
    assert run("info", tmp_path) == 2
    assert "has no checkpoint, export or .jahp file" in capsys.readouterr().err


def test_info_knows_a_compressed_file_by_its_first_bytes_and_gives_the_quality_asked_for(photo, capsys):
    renamed = photo.with_name("renamed.bin")
    assert run("compress", photo, "-o", renamed, "--quality", "37", "--effort", "0") == 0
    capsys.readouterr()
    assert run("info", renamed) == 0
    rows = {line[:15].strip(): line[16:] for line in capsys.readouterr().out.splitlines()}
    assert rows["image"] == "217 x 181 pixels"
    assert rows["quality"].startswith("37.0 (rate level ")


def test_info_refuses_an_image_as_what_it_is(photo, capsys):
    assert run("info", photo) == 2
    assert "photo.png: is an image, not a .jahp file or a model" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", ["x.jahp", "x.ckpt", "x"])
def test_info_does_not_wait_for_a_pipe(name, tmp_path, capsys):
    os.mkfifo(tmp_path / name)
    assert run("info", tmp_path / name) == 2
    assert f"{name}: is not a regular file; give - and redirect it to standard input" in capsys.readouterr().err
    assert run("info", tmp_path) == 2
    assert "has no checkpoint, export or .jahp file" in capsys.readouterr().err


def test_info_reads_standard_input(model_file, photo, monkeypatch, capsys):
    run("compress", photo, "--model", model_file)
    data = photo.with_suffix(".jahp").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("info", "-") == 0
    assert "217 x 181 pixels" in capsys.readouterr().out


def test_info_shows_lambda_steps_and_figures_of_a_bundled_model_and_recognizes_its_weights(tmp_path, capsys):
    name = pretrained.bundled_models()[-1].name
    copy = tmp_path / "elsewhere"
    shutil.copytree(pretrained.BUNDLED_FOLDER / name, copy)
    assert run("info", copy) == 0
    rows = {line[:15].strip(): line[16:] for line in capsys.readouterr().out.splitlines()}
    config = json.loads((copy / "config.json").read_text())
    assert rows["bundled as"] == name
    assert rows["lambda"].startswith(str(config["facts"]["loss"]["lmbda"]))
    start = config["facts"]["optim"]["start_from"]
    assert rows["last run"].startswith(f"{config['facts']['step']} steps in ")
    assert rows["last run"].endswith(f", from the weights of {start}")
    assert f"learning_rate={config['facts']['optim']['learning_rate']} " in rows["optim"]
    for point in config["results"]["points"]:
        figures = f"{point['bpp']:.4f} bits per pixel, {point['psnr']:.2f} dB"
        assert rows[f"quality {point['quality']:g}"].startswith(figures)
