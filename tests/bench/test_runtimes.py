"""`jahp bench runtimes`: both runtimes are measured in processes of their own, and the results are saved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.bench.runtimes import RuntimeCost, compressed, measure_runtime, runtime_table
from jahp_pl.model_io.load import export
from tests.support.codec_models import JOINT, codec_of, kodak_crop

pytestmark = pytest.mark.slow


def test_a_cold_start_and_the_steady_state_are_measured(tmp_path: Path) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    Image.fromarray(kodak_crop("kodim05", 64, 80)).save(tmp_path / "photo.png")
    data = compressed(tmp_path / "photo.png", str(tmp_path / "m"))
    assert codec_of(JOINT).decode(data).image.shape == (3, 64, 80)
    cost = measure_runtime("onnx", str(tmp_path / "m"), data, threads=1, rounds=1)
    assert cost.cold_seconds > cost.steady_seconds > 0
    assert 20 < cost.steady_megabytes < 1000
    if sys.platform == "linux":
        assert cost.cold_megabytes > 20
    assert "onnx" in runtime_table({"onnx": cost})
    assert json.loads(json.dumps(cost._asdict()))["cold_seconds"] == cost.cold_seconds
    assert RuntimeCost._fields == tuple(cost._asdict())
