"""Tests of `jahp bench coding`: stages, a peer program, and errors in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.bench.coding import CodingTimes
from jahp_pl.model_io.export import export
from tests.support.codec_models import JOINT, kodak_crop, model_of, variable_model
from tests.support.commands import run

PEER = """
import json, sys, torch
weights, rounds, threads, *images = sys.argv[1:]
stored = torch.load(weights, weights_only=True)
assert stored["model"]["entropy_model"] == "joint" and "g_a.0.weight" in stored["state"] and rounds == "2"
print("talk")
print(json.dumps({"name": "Peer", "encode": 1.0, "decode": 2.0, "bpp": len(images), "psnr": 30.0}))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, an image and a peer program."""
    folder = tmp_path_factory.mktemp("bench")
    export(model_of(JOINT), folder / "model", {"source": "test"})
    Image.fromarray(kodak_crop(height=64, width=96)).save(folder / "crop.png")
    (folder / "peer.py").write_text(PEER)
    return folder


def bench(place: Path, *arguments: object) -> int:
    return run("bench", "coding", "--model", place / "model", "--images", place / "crop.png", "--rounds", 2, *arguments)


def test_stages_are_part_of_the_whole(place, capsys):
    out = place / "bench.json"
    peer = f"{sys.executable} {place / 'peer.py'}"
    assert bench(place, "--out", out, "--peer", peer) == 0
    content = json.loads(out.read_text())
    speed = content["models"]["model"]
    times = speed["times"]
    assert 0 < times["g_s"] < times["decode"]
    assert 0 < times["g_a"] < times["encode"]
    assert all(times[name] > 0 for name in ("h_a", "module_g_a", "module_g_s"))
    assert speed["num_images"] == 1
    assert speed["rounds"] == 2
    assert speed["peer"] == {"name": "Peer", "encode": 1.0, "decode": 2.0, "bpp": 1, "psnr": 30.0}
    assert content["machine"]["cpu"]
    output = capsys.readouterr().out
    assert "all else" in output
    assert "Peer: encode" in output


def test_a_variable_rate_model_is_timed_at_its_default_quality(place):
    export(variable_model(), place / "variable", {"source": "test"})
    out = place / "variable.json"
    assert bench(place, "--model", place / "variable", "--out", out) == 0
    speed = json.loads(out.read_text())["models"]["variable"]
    assert speed["model"]["num_levels"] == 4
    assert all(speed["times"][name] > 0 for name in ("g_a", "g_s", "module_g_a", "module_g_s"))


def test_shares_are_of_the_transforms():
    times = CodingTimes(encode=1.5, decode=3.0, g_a=0.9, h_a=0.1, g_s=2.0, module_g_a=1.0, module_g_s=4.0)
    assert times.outside_encode == pytest.approx(0.5)
    assert times.outside_decode == pytest.approx(0.5)


@pytest.mark.parametrize("program", ["import sys; sys.exit('no such model')", "pass", "raise ValueError('broken')"])
def test_a_peer_that_fails_is_named(place, program, capsys):
    script = place / "failing.py"
    script.write_text(program)
    assert bench(place, "--peer", f"{sys.executable} {script}") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("jahp: ")
    assert "failing.py" in line


def test_a_memory_limit_below_one_tile_is_refused(place, capsys):
    assert bench(place, "--memory", 1) == 2
    assert "--memory 1: a memory limit of 1 MiB is too low" in capsys.readouterr().err
