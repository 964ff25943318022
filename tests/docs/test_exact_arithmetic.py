"""docs/exact-arithmetic.md is correct: its blocks run, its bounds are the codec's, its figures were measured."""

from __future__ import annotations

import json
import re
import runpy
from statistics import fmean
from typing import Any

import pytest

from jahp_pl.codec.entropy.fixed_point import FixedPointLayer
from jahp_pl.codec.entropy.integer_layers import FLOAT32_EXACT, LARGEST_INPUT, LATENT_RADIX
from jahp_pl.codec.entropy.networks import ExactContextNetwork, ExactHyperSynthesis
from jahp_pl.codec.entropy.wavefront import coding_order
from jahp_pl.codec.entropy.window_tables import NUM_SCALES
from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from tests.support import pages

PAGE = pages.read("exact-arithmetic")
DRAWING = runpy.run_path(str(pages.DOCS / "wavefront.py"))


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Names that the page's blocks define when they are run in order."""
    names: dict[str, Any] = {}
    for block in pages.blocks(PAGE):
        assert block.language == "python"
        exec(block.text, names)
    return names


def test_an_error_in_one_mass_corrupts_all_symbols_after_24_bits(names: dict[str, Any]) -> None:
    wrong = names["wrong"]
    assert f"The first wrong symbol is number {wrong[0]}." in PAGE
    assert f"# {len(names['payload'])} bytes" in PAGE
    assert len(wrong) > 0.6 * (len(names["found"]) - 1000)
    bits = 8 * len(names["payload"]) / len(names["symbols"])
    assert f"at {bits:.1f} bits each" in PAGE
    assert 20 < bits * (wrong[0] - 1000) < 32


def test_the_float_model_gives_other_means_for_one_position_than_for_a_frame(names: dict[str, Any]) -> None:
    difference = names["difference"]
    assert 0 < float(difference.max()) < 1e-5
    assert int((difference > 0).sum()) > 20


def test_the_table_of_bounds_is_that_of_the_codec() -> None:
    model = CompressionModel(ModelConfig())
    assert model.g_cm is not None
    assert model.g_ep is not None
    assert model.h_s is not None
    context = ExactContextNetwork(model.g_cm, model.g_ep, has_psi=True)
    assert context.from_psi is not None
    h_s, g_ep = ExactHyperSynthesis(model.h_s).layers, context.layers
    layers: dict[str, list[FixedPointLayer]] = {
        "h_s, first and second": h_s[:2], "h_s, third": h_s[2:], "g_cm": [context.context],
        "g_ep, first, of psi and of phi": [context.from_psi, g_ep[0]], "g_ep, second": [g_ep[1]],
        "g_ep, third": [g_ep[2]],
    }  # fmt: skip
    rows = re.findall(r"^\| ([a-z_, ]+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    assert [row[0] for row in rows] == list(layers)
    for name, *cells in rows:
        for layer in layers[name]:
            inputs, largest = layer.weight.shape[1], LATENT_RADIX // 2 if name == "g_cm" else LARGEST_INPUT
            room = FLOAT32_EXACT // largest - inputs // 2 - 1
            assert cells == [str(inputs), str(largest), str(room), f"{room / inputs:.1f}"]
            sums = layer.integers().abs().sum(1).amax(0)
            assert float(sums.max()) * largest <= FLOAT32_EXACT - largest
            assert float(sums.min()) >= (room - inputs) / 2


def test_the_figures_are_those_of_the_results() -> None:
    images = json.loads((pages.ROOT / "results" / "full-1.json").read_text())["images"]
    assert f"{fmean(image['file_bpp'] for image in images):.2f} bits per pixel" in PAGE
    exactness = json.loads((pages.ROOT / "results" / "exactness.json").read_text())
    for model in exactness["models"]:
        assert f"one of {model['latents']:,} latents" in PAGE
        assert set(model["differences"].values()) == {0}
        assert len(model["differences"]) == 16, "the page says sixteen"
    assert [model["model"]["num_components"] for model in exactness["models"]] == [1, 3]
    assert f"{NUM_SCALES} scales" in PAGE


def test_the_picture_is_the_codecs_coding_order() -> None:
    assert (pages.DOCS / "wavefront.svg").read_text() == "\n".join(DRAWING["drawing"]()) + "\n"
    assert all(t == column + 3 * row for (row, column), t in DRAWING["steps"]().items())
    plan = coding_order([(32, 48)], DRAWING["OFFSETS"])
    assert f"{len(plan.steps)} instead of {32 * 48}" in PAGE
    assert f"with {32 * 48 / len(plan.steps):.0f} rows on average" in PAGE
