"""Tests of `jahp bench runtimes`: each runtime is measured in its own process, and the results are saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.model_io.export import export
from tests.support.codec_models import JOINT, codec_of, kodak_crop

pytestmark = pytest.mark.slow


def test_cold_starts_and_the_steady_state_are_measured(tmp_path: Path) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    Image.fromarray(kodak_crop("kodim05", 64, 80)).save(tmp_path / "photo.png")
    # In a separate process, because a child's peak resident memory is at least that of the process that starts it.
    words = ["--image", "photo.png", "--model", "m", "--rounds", "1", "-o", "r.json"]
    command = [sys.executable, "-m", "jahp_pl", "bench", "runtimes", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "onnx" in done.stdout
    costs = json.loads((tmp_path / "r.json").read_text())["runtimes"]
    assert set(costs) == {"torch", "onnx"}
    for cost in costs.values():
        assert cost["cold_seconds"] > cost["steady_seconds"] > 0
        assert 20 < cost["steady_megabytes"] < 1000
        assert 20 < cost["cold_megabytes"] < 1000
    assert costs["onnx"]["cold_processor_seconds"] < costs["torch"]["cold_processor_seconds"]


@pytest.mark.parametrize(("image", "reason"), [("nowhere.png", "no such file"), ("text.png", "not an image")])
def test_an_image_that_cannot_be_used_is_named_in_one_line(image: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    command = [sys.executable, "-m", "jahp_pl", "bench", "runtimes", "--image", image]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"jahp: {image}: {reason}")
    assert done.stderr.count("\n") == 1
