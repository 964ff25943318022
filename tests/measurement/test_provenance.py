"""Results state their provenance and where their bits went, but no path or person."""

from __future__ import annotations

import json
import math
import os
import socket
from pathlib import Path

import pytest

from jahp_pl.measurement.provenance import command_line, provenance
from tests.support.commands import run
from tests.support.compressai_states import in_their_names, model_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["joint", "factorized"])
def content(request, tmp_path_factory):
    """The results file of a small untrained model on one image of 192 x 176."""
    import torch
    from PIL import Image

    folder = tmp_path_factory.mktemp("evaluation")
    torch.save({"state_dict": in_their_names(model_of(request.param))}, folder / "theirs.pth.tar")
    assert run("import-compressai", folder / "theirs.pth.tar", "--out", folder / "model") == 0
    (folder / "images").mkdir()
    with Image.open(ROOT / "data" / "kodak" / "kodim23.png") as image:
        image.crop((100, 100, 292, 276)).save(folder / "images" / "parrots.png")
    out = folder / "results.json"
    arguments = ("--model", folder / "model", "--images", folder / "images", "--out", out, "--curve", "Mine")
    assert run("evaluate", *arguments) == 0
    return json.loads(out.read_text())


def test_the_parts_of_the_rate_add_up_to_the_file(content):
    for row in (content["mean"], *content["images"]):
        assert math.isclose(sum(row["rate"].values()), row["file_bpp"], rel_tol=1e-9)
        assert math.isclose(row["rate"]["y"] + row["rate"]["z"], row["cross_entropy_bpp"], rel_tol=1e-4)
        assert row["rate"]["header"] == 8 * row["header_bytes"] / (192 * 176)


def test_channels_add_up_to_latents_and_hyper_latents_and_come_in_order(content):
    for part in ("y", "z"):
        channels = content["bpp_per_channel"][part]
        assert channels == sorted(channels, reverse=True)
        assert math.isclose(sum(channels), content["mean"]["rate"][part], rel_tol=1e-3, abs_tol=1e-9)
    assert bool(content["bpp_per_channel"]["z"]) == (content["provenance"]["model"]["entropy_model"] == "joint")


def test_similarity_in_decibels_is_that_of_the_similarity(content):
    for row in (content["mean"], *content["images"]):
        assert math.isclose(row["file_ms_ssim_db"], -10 * math.log10(1 - row["file_ms_ssim"]), rel_tol=1e-9)


def test_provenance_names_model_versions_and_machine_but_no_path(content):
    facts = content["provenance"]
    assert len(facts["fingerprint"]) == 16
    assert facts["curve"] == "Mine"
    assert facts["training"]["trained_with"] == "CompressAI"
    assert {"python", "torch", "jahp_pl"} <= set(facts["versions"])
    assert facts["machine"]["cores"] >= 1
    assert facts["machine"]["cpu"]
    text = json.dumps(content)
    assert str(Path.home()) + "/" not in text
    assert "/tmp" not in text


def test_the_host_name_is_never_recorded():
    words = json.dumps(provenance(["jahp", "evaluate"]))
    assert socket.gethostname() not in words
    assert os.fspath(Path.cwd()) not in words


def test_a_command_is_recorded_without_absolute_paths():
    words = ["jahp", "evaluate", "--out=/home/someone/r.json", str(Path.cwd() / "data" / "kodak"), "a b"]
    assert command_line(words) == "jahp evaluate --out=r.json data/kodak 'a b'"
