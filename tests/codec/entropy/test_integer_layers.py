"""Weights become integers that keep every sum exact, on the finest grid that does; others are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jahp_pl.codec.entropy.integer_layers import (
    FLOAT32_EXACT,
    LARGEST_INPUT,
    LATENT_RADIX,
    MAX_GRID_EXPONENT,
    UnusableModelError,
    conv_taps,
)
from tests.support.codec_models import JOINT, MIXTURE, Variant, codec_of
from tests.support.integer_layers import convert_layer, largest_sum

TRAINED = [JOINT, MIXTURE, Variant("scale_hyperprior"), Variant("context")]


@pytest.mark.parametrize("variant", TRAINED, ids=str)
def test_the_bound_holds_for_every_layer_of_trained_models(variant: Variant) -> None:
    coder = codec_of(variant).latents
    assert coder is not None
    layers = list(coder.layers())
    assert len(layers) == {"joint": 8, "scale_hyperprior": 3, "context": 4}[variant.entropy_model]
    for layer in layers:
        is_g_cm = coder.context is not None and layer is coder.context.context
        reached = largest_sum(layer, LATENT_RADIX // 2 if is_g_cm else LARGEST_INPUT)
        assert FLOAT32_EXACT / 4 < reached < FLOAT32_EXACT, "proved, and no bit given away"


ADVERSARIAL: dict[str, Callable[[], Tensor]] = {
    "one giant": lambda: torch.full((3, 40, 6), 1e-6).index_fill_(1, torch.tensor([7]), 9e3),
    "halves, all rounded up": lambda: torch.full((3, 40, 6), (16384 - 21) / 40 // 1 + 0.5),
    "equal powers of two": lambda: torch.full((3, 40, 6), 2.0**-5),
    "just below a power of two": lambda: torch.full((3, 40, 6), 1 - 2.0**-24),
    "just above a power of two": lambda: torch.full((3, 40, 6), 1 + 2.0**-23),
    "of very different channels": lambda: torch.randn(3, 40, 6) * torch.logspace(-30, 9, 6),
    "one tap large": lambda: torch.randn(3, 40, 6) * torch.tensor([1e-9, 1e4, 1.0])[:, None, None],
    "denormal": lambda: torch.full((3, 40, 6), 1e-42),
    "zero": lambda: torch.zeros(3, 40, 6),
    "many inputs": lambda: torch.randn(1, 32000, 2),
    "one input": lambda: torch.tensor([[[0.1, -3.0]]]),
}


@pytest.mark.parametrize("largest_input", [LARGEST_INPUT, LATENT_RADIX // 2])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_bound_holds_for_weights_made_to_break_it_and_the_grid_is_the_finest(name: str, largest_input: int) -> None:
    weight = ADVERSARIAL[name]()
    layer = convert_layer("any", weight, None, 1.0, largest_input)
    integers = layer.integers().double()
    assert torch.equal(integers, integers.round())
    assert torch.equal((integers * layer.grid).float(), layer.weight)
    assert largest_sum(layer, largest_input) < FLOAT32_EXACT
    assert torch.equal(torch.frexp(layer.grid).mantissa, torch.full_like(layer.grid, 0.5)), "powers of two"
    assert float((layer.weight.double() - weight).abs().div(layer.grid).max()) <= 0.5
    largest = weight.double().abs().sum(1).amax(0)
    room = FLOAT32_EXACT // largest_input - weight.shape[1] // 2 - 1
    finest = (largest * 2 / layer.grid >= room) | (layer.grid == 2.0**-MAX_GRID_EXPONENT) | (largest == 0)
    assert bool(finest.all())


@given(
    seed=st.integers(0, 2**32),
    num_in=st.integers(1, 300),
    log_scale=st.floats(-40, 8),
    spread=st.floats(0, 6),
)
@settings(max_examples=60, deadline=None)
def test_the_bound_holds_for_random_weights(seed: int, num_in: int, log_scale: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** (log_scale - spread * torch.rand(2, num_in, 3, generator=generator))
    weight = (torch.randn(2, num_in, 3, generator=generator) * scale).float()
    assert largest_sum(convert_layer("any", weight, None, 1.0)) < FLOAT32_EXACT


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_non_finite_weights_are_refused_with_the_layers_name(where: str, value: float) -> None:
    tensors = {"weight": torch.zeros(1, 3, 2), "bias": torch.zeros(2)}
    tensors[where].view(-1)[-1] = value
    with pytest.raises(UnusableModelError, match=r"^h_s\.2: has weights that are not finite"):
        convert_layer("h_s.2", tensors["weight"], tensors["bias"], 1.0)


def test_weights_beyond_the_coarsest_grid_are_refused() -> None:
    weight = torch.zeros(1, 10, 3)
    weight[0, 4, 1] = 2.0**46
    with pytest.raises(UnusableModelError, match=r"^g_ep\.2: weights up to 7\.04e\+13 are too large"):
        convert_layer("g_ep.2", weight, None, 1.0)
    weight[0, 4, 1] = 2.0**45
    assert largest_sum(convert_layer("g_ep.2", weight, None, 1.0)) < FLOAT32_EXACT


def test_a_layer_of_too_many_inputs_is_refused() -> None:
    with pytest.raises(UnusableModelError, match=r"^broad: 32768 inputs are too many"):
        convert_layer("broad", torch.ones(1, 2**15, 1), None, 1.0)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 5), nn.ConvTranspose2d(3, 4, 5)], ids=["plain", "transposed"])
def test_taps_are_in_raster_order(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    taps = torch.from_numpy(conv_taps(layer.weight.detach().numpy(), isinstance(layer, nn.ConvTranspose2d)))
    assert taps.shape == (25, 3, 4)
    for row, column in [(0, 0), (1, 3), (4, 4)]:
        kernel = layer.weight[:, :, row, column]
        assert torch.equal(taps[5 * row + column], kernel if isinstance(layer, nn.ConvTranspose2d) else kernel.T)
