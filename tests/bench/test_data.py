"""Tests of `jahp bench data`: every way to get crops is measured on the same photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from jahp_pl.bench.data import PlainLoader
from jahp_pl.images.io import decode_rgb
from tests.support.commands import run

PHOTOS = Path(__file__).parents[2] / "data" / "photos"


def test_the_plain_loader_cuts_crops_from_whole_files() -> None:
    path = PHOTOS / "val" / "neon.jpg"
    whole = torch.from_numpy(decode_rgb(path)).permute(2, 0, 1)
    crop = PlainLoader([path], 500)[0]
    assert crop.shape == (3, 500, 500)
    level = (crop * 255).round().to(torch.uint8)
    places = whole.unfold(1, 500, 1).unfold(2, 500, 1)
    assert any(
        torch.equal(places[:, y, x], candidate)
        for candidate in (level, level.flip(-1))
        for y in range(places.shape[1])
        for x in range(places.shape[2])
    )


def test_all_cases_are_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("dogs", "neon"):
        with Image.open(PHOTOS / "val" / f"{name}.jpg") as image:
            image.resize((160, 120)).save(tmp_path / "in" / f"{name}.jpg")
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "small.png")
    settings = [
        "data.crop_size=64", "data.batch_size=4", "data.num_workers=1", "model.num_filters=8", "model.num_latents=8"
    ]  # fmt: skip
    out = tmp_path / "bench.json"
    measure = ["--images", tmp_path / "in", "--batches", 2, "--rounds", 2, "--out", out]
    assert run("bench", "data", *settings, *measure) == 0
    content = json.loads(out.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert len(rows) == 6
    assert all(row["per_core"] > 0 and row["with_workers"] > 0 for row in rows.values())
    assert rows["lossless shards"]["decode_share"] > 0
    assert content["h200"]["flops_per_crop"] > 1e6
    assert content["data"]["crop_size"] == 64
    output = capsys.readouterr().out
    assert "plain loader, original files" in output
    assert "an H200 at 30%" in output


def test_settings_may_follow_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    (tmp_path / "c.yaml").write_text("data: {crop_size: 32}\n")
    assert run("bench", "data", "--images", tmp_path / "c.yaml") == 2
    assert "--images: is followed by settings only" in capsys.readouterr().err
    for settings, size in ((["data.crop_size=64"], 64), ([tmp_path / "c.yaml"], 32)):
        assert run("bench", "data", "--images", tmp_path, *settings) == 2
        assert f"no photograph is as large as data.crop_size={size}" in capsys.readouterr().err
    words = ["--rounds", 1, "data.crop_size=32", "--images", tmp_path, "data.crop_size=64", "--batches", 1]
    assert run("bench", "data", "data.crop_size=16", *words, "data.crop_size=48") == 2
    assert "no photograph is as large as data.crop_size=48" in capsys.readouterr().err, "not the last one"
    assert run("bench", "data", "--images", tmp_path, "data.crop_size=16", "data.train=[http://127.0.0.1:9/]") == 2
    assert "data.train: http://127.0.0.1:9/index.json: " in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device")
def test_a_file_that_is_not_an_image_is_named_with_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "data", "--images", "/dev/null") == 2
    assert "/dev/null: is not a regular file; give an image" in capsys.readouterr().err
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "empty.png").touch()
    assert run("bench", "data", "--images", tmp_path) == 2
    assert f"{tmp_path / 'deeper' / 'empty.png'}: not an image" in capsys.readouterr().err


def test_photographs_smaller_than_a_crop_are_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    assert run("bench", "data", "--images", tmp_path) == 2
    assert "no photograph is as large as data.crop_size=256" in capsys.readouterr().err
