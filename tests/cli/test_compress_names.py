"""Tests of `jahp compress` and `jahp decompress` with the names, dates and existing outputs of daily use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jahp_pl.codec.bitstream import unpack
from tests.support.codec_models import kodak_crop
from tests.support.colored_files import CASES
from tests.support.commands import run
from tests.support.profiles import DISPLAY_P3

JAHP = [sys.executable, "-m", "jahp_pl"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(kodak_crop()[:40, :40]).save(path)
    return path


def compress(source: Path, *options: object) -> int:
    return run("compress", source, "--quality", "1", "--threads", "1", *options)


def test_a_round_trip_by_default_names_keeps_the_original(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = photo.read_bytes()
    assert compress(photo) == 0
    for _ in range(2):
        status = run("decompress", photo.with_suffix(".jahp"), "--threads", "1")
        error = capsys.readouterr().err
    assert (status, photo.read_bytes()) == (2, original)
    assert "photo.decoded.png: exists; --force overwrites it" in error
    with Image.open(photo.with_name("photo.decoded.png")) as image:
        assert image.size == (40, 40)


def test_a_folder_is_decoded_beside_its_originals_under_other_names(photo: Path) -> None:
    original = photo.read_bytes()
    folder = photo.parent
    assert compress(folder) == 0
    assert run("decompress", folder, "--threads", "1", "--force") == 0
    assert (folder / "photo.decoded.png").exists()
    assert photo.read_bytes() == original


def test_overwriting_foreign_files_is_never_suggested(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded = photo.with_suffix(".jahp")
    assert compress(photo) == 0
    assert run("decompress", coded, "-o", photo, "--threads", "1") == 2
    assert run("decompress", photo.parent, "-o", photo.parent, "--threads", "1") == 2
    coded.write_bytes(b"my own notes")
    assert compress(photo) == 2
    error = capsys.readouterr().err
    assert "--force" not in error
    assert error.count("choose another output with -o") == 3


def test_another_option_than_in_the_run_before_is_not_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    Image.fromarray(kodak_crop()[:40, :40]).save(photos / "p3.png", icc_profile=DISPLAY_P3)
    for first, then in (([], ["--srgb"]), (["--srgb"], [])):
        assert compress(photos, "-o", out, *first, "--force") == 0
        assert compress(photos, "-o", out, *first) == 0
        capsys.readouterr()
        assert compress(photos, "-o", out, *then) == 2
        assert "with these options; --force overwrites it" in capsys.readouterr().err
        header, _ = unpack((out / "p3.jahp").read_bytes())
        assert header.icc == (b"" if first else DISPLAY_P3)


def test_verify_checks_existing_outputs(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jahp_pl.codec.bitstream import pack

    assert compress(photo.parent, "--verify") == 0
    coded = photo.with_suffix(".jahp")
    header, payload = unpack(coded.read_bytes())
    coded.write_bytes(pack(replace(header, latent_min=0, latent_max=0), payload))
    assert compress(photo.parent) == 0  # the header does not state it
    assert compress(photo.parent, "--verify") == 2
    assert "photo.jahp: exists and was not made by this model" in capsys.readouterr().err


@pytest.mark.parametrize("name", [80 * "\u732b", 240 * "a", 250 * "b"])
def test_every_name_that_a_file_system_holds_can_be_written(name: str, photo: Path) -> None:
    source = photo.rename(photo.with_name(f"{name}.png"))
    assert compress(source) == 0
    assert source.with_suffix(".jahp").exists()


def test_a_name_that_becomes_too_long_is_reported(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compress(photo.rename(photo.with_name(f"{251 * 'a'}.png"))) == 2
    assert "its name has 256 bytes, more than 255; give a shorter one" in capsys.readouterr().err


def test_a_source_dated_in_the_future_is_done_once(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tomorrow = time.time() + 86400
    os.utime(photo, (tomorrow, tomorrow))
    for _ in range(2):
        assert compress(photo.parent) == 0
    assert "1 of 1 was done already" in capsys.readouterr().out
    os.utime(photo, (tomorrow + 1, tomorrow + 1))
    assert compress(photo.parent) == 2
    assert "older" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_does_not_stop_a_folder(photo: Path) -> None:
    folder = os.fsencode(photo.parent)
    (photo.parent / "b.png").write_bytes(photo.read_bytes())
    Path(os.fsdecode(folder + b"/a\xff.png")).write_bytes(photo.read_bytes())
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [*JAHP, "compress", str(photo.parent), "--quality", "1", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"a\\udcff.png -> " in done.stdout
    assert len(list(photo.parent.glob("*.jahp"))) == 3


def test_names_do_not_move_the_cursor(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = photo.rename(photo.with_name("\x1b[2J\u202ephoto.png"))
    (photo.parent / "\x1b]0;title\x07.png").write_bytes(b"none")
    assert compress(photo.parent) == 2
    assert run("info", photo.parent) == 0
    assert compress(photo.parent / "\x1b[31mgone") == 2
    assert run("info", "\x1b[31mgone") == 2
    assert run("train", "\x1b[31mkey=1") == 2
    assert run("\x1b[31mcommand") == 2
    output = "".join(capsys.readouterr())
    assert "\x1b" not in output
    assert "\u202e" not in output
    assert "\\x1b[2J\\u202ephoto.png" in output
    assert hostile.exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_standard_stream_is_not_an_error_and_gets_no_file(closed: str, photo: Path) -> None:
    output = photo.with_suffix(".jahp")
    command = f'"$0" -m jahp_pl compress "$1" --quality 1 --threads 1 {closed}'
    subprocess.run(["bash", "-c", command, sys.executable, str(photo)], check=True)
    header, _ = unpack(output.read_bytes())
    assert (header.width, header.height) == (40, 40)


def test_colors_stated_without_a_profile_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "gamma.png"
    source.write_bytes(CASES["PNG", "cHRM", "8"]().data)
    assert compress(source) == 0
    assert run("decompress", tmp_path / "gamma.jahp", "--threads", "1") == 0
    with Image.open(tmp_path / "gamma.decoded.png") as image:
        assert image.info["icc_profile"]
        assert np.asarray(image).shape == (32, 32, 3)


def test_a_closed_standard_input_is_an_empty_one(tmp_path: Path) -> None:
    command = '"$0" -m jahp_pl compress - -o "$1" <&-'
    done = subprocess.run(["sh", "-c", command, sys.executable, tmp_path / "a.jahp"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("jahp: standard input: not an image")
