"""Tests of `jahp bench train`: real training steps alternating with a peer program, and errors in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jahp_pl.bench import training
from jahp_pl.bench.roofline import matrix_flops, product_seconds, record_layer_calls
from jahp_pl.bench.training import count_flops
from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.settings import load_config
from tests.support.commands import run

SMALL = ("model.num_filters=8", "model.num_latents=12", "data.crop_size=64", "data.batch_size=2", "data.num_workers=1")
PEER = """
import json, sys
assert sys.argv[1:] == ["2", "64", "2", "1"], sys.argv
print("talk")
for line in sys.stdin:
    print(json.dumps({"name": "Peer", "seconds": 0.5}), flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A folder with shards and a peer program."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "train").symlink_to(shards / "train")
    (folder / "peer.py").write_text(PEER)
    return folder


def bench(place: Path, *arguments: object) -> int:
    settings = (*SMALL, f"data.train=[{place / 'train'}]", "trainer.accelerator=cpu", "name=small")
    return run("bench", "train", *settings, "--threads", 1, "--steps", 2, "--rounds", 1, *arguments)


def test_steps_are_timed_beside_a_variant_and_another_program(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "steps.json"
    peer = f"{sys.executable} {place / 'peer.py'}"
    assert bench(place, "--variant", "trainer.channels_last=true", "--peer", peer, "--out", out) == 0
    speeds = json.loads(out.read_text())["small"]
    assert [row["name"] for row in speeds["variants"]] == ["as configured", "trainer.channels_last=true"]
    for row in speeds["variants"]:
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
        assert row["times_peer"] == pytest.approx(0.5 / row["seconds"])
        assert 0 <= row["waiting"] < 1
        assert 0 < row["flops"] < row["matrix_flops"]
        assert 0 < row["product_seconds"] < row["seconds"]
        assert row["memory"] > 2**26
        assert 0.8 < sum(row["operations"].values()) <= 1.001
        assert any("convolution" in name for name in row["operations"])
    assert speeds["peer"] == {"name": "Peer", "images_per_second": 4.0}
    output = capsys.readouterr().out
    assert "images/s" in output
    assert "where the time of the fastest goes" in output


def test_figures_are_medians_over_rounds_and_ratios_are_taken_within_rounds() -> None:
    rows: list[dict[str, Any]] = [
        {"seconds": seconds, "waiting": 0.1, "matrix_flops": 9.0, "product_seconds": 0.5, "memory": memory}
        for seconds, memory in ((1.0, 5), (8.0, 7), (2.0, 6))
    ]
    rows[-1]["operations"] = {"aten::mm": 1.0}
    peer = [{"seconds": seconds} for seconds in (3.0, 8.0, 1.0)]
    speed = training._speed("x", rows, peer, batch_size=4, flops_per_image=10.0)
    assert (speed.seconds, speed.images_per_second, speed.flops, speed.memory) == (2.0, 2.0, 20.0, 7)
    assert speed.times_peer == 1.0  # the median of 3, 1 and 0.5
    assert training._speed("x", rows, None, batch_size=4, flops_per_image=10.0).times_peer is None


def test_operations_are_counted_forward_and_backward() -> None:
    config = load_config(
        "model.num_filters=8", "model.num_latents=12", "model.entropy_model=factorized", "data.crop_size=64"
    )
    # Multiplications in the kernels and GDNs of g_a and g_s, from the sizes of their outputs, per pixel of x.
    kernels = 25 * (3 * 8 / 4 + 64 / 16 + 64 / 64 + 8 * 12 / 256)
    gdn = 64 / 4 + 64 / 16 + 64 / 64
    once = 2 * 64**2 * 2 * (kernels + gdn)
    assert 2.5 * once < count_flops(config) < 3.5 * once  # forward, and gradients with respect to inputs and weights
    config.optim.transform_factor = 0
    assert 0.4 * once < count_flops(config) < 0.6 * once  # g_a forward


def test_the_products_of_a_step_are_those_that_it_makes() -> None:
    model = CompressionModel(ModelConfig(num_filters=4, num_latents=6))
    found = record_layer_calls(model, torch.rand(2, 3, 64, 64), reconstruct=True)
    assert len(found) == 4 + 3 + 4 + 3 + 3 + 3 + 1 + 3
    assert [tuple(product.x.shape) for product in found[:2]] == [(2, 3, 64, 64), (2, 4, 32, 32)]
    assert [product.needs_input_grad for product in found] == [False] + 23 * [True]
    assert 0 < product_seconds(found[:2], torch.float32) < product_seconds(3 * found, torch.float32)
    for transform in (model.g_a, model.g_s):
        transform.requires_grad_(False)
    found = record_layer_calls(model, torch.rand(2, 3, 64, 64), reconstruct=False)
    assert [product.needs_weight_grad for product in found] == 7 * [False] + 10 * [True]
    assert [product.needs_input_grad for product in found] == 8 * [False] + 9 * [True]


def test_a_matrix_product_is_no_slower_than_a_part_of_it() -> None:
    rate = matrix_flops(torch.device("cpu"), torch.float32, rounds=1)
    assert 1e8 < rate < 1e15


@pytest.mark.parametrize("program", ["import sys; sys.exit('no such model')", "pass"])
def test_a_program_that_fails_is_named(place: Path, program: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = place / "failing.py"
    script.write_text(program)
    assert bench(place, "--peer", f"{sys.executable} {script}") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("jahp: ")
    assert "failing.py" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--variant", "data.crop_size=128"), "data.crop_size=128: has another batch or crop size"),
        (("trainer.devices=2",), "trainer.devices=2: steps are timed in one process"),
        (("--variant", "model.width=3"), "model.width"),
    ],
)
def test_incomparable_settings_are_refused(
    place: Path, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(place, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_an_error_of_a_program_is_shown_without_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "train", *SMALL, "trainer.accelerator=cpu", "--steps", 1, "--rounds", 1) == 2
    error = capsys.readouterr().err
    assert "jahp: as configured: data.train: no shards given" in error
    assert "Traceback" not in error
