"""Exact networks equal arithmetic by hand, stay close to the float model, and refuse weights that might be inexact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.fixed_point import FixedPointLayer
from jahp_pl.codec.entropy.integer_layers import RAW_CLAMP, UnusableModelError
from jahp_pl.codec.entropy.networks import ExactContextNetwork, ExactHyperSynthesis, to_raw
from jahp_pl.context import ContextPrediction, EntropyParameterNetwork
from jahp_pl.hyperprior import HyperSynthesis
from jahp_pl.model import CompressionModel
from tests.support.codec_models import ALL, Variant, codec_of, latents, load_golden, model_of
from tests.support.raw_outputs import raw_outputs

Floats = npt.NDArray[np.float32]


# --- it equals arithmetic by hand -------------------------------------------------------------------------------------


def by_hand(layer: FixedPointLayer, out: Floats, inputs: list[tuple[int, Floats]]) -> Floats:
    """Add the products of inputs (n, in) to out (n, out), tap by tap: block floating point with 64-bit integers, and
    sums in float32.
    """
    for tap, values in inputs:
        largest = np.abs(values).max(axis=1, keepdims=True).astype(np.float64)
        steps = 2.0 ** (np.floor(np.log2(np.clip(largest, 2.0**-40, 2.0**40))) - 9)
        mantissas = np.clip(np.rint(values / steps), -1024, 1024).astype(np.int64)
        sums = mantissas @ layer.integers()[tap].long().numpy()
        assert np.abs(sums).max() < 2**24
        out = out + (sums * steps * layer.grid.numpy().astype(np.float64)).astype(np.float32)
    return np.where(out > 0, out, out * np.float32(layer.slope)) if layer.slope != 1.0 else out


def gather(x: Floats, row: int, column: int) -> Floats:
    """Read (h, w, C) at `row` rows below and `column` columns right of each position, zero outside: (h w, C)."""
    height, width, _ = x.shape
    out = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            if 0 <= i + row < height and 0 <= j + column < width:
                out[i, j] = x[i + row, j + column]
    return out.reshape(height * width, -1)


def h_s_by_hand(layers: list[FixedPointLayer], z_hat: Tensor) -> Floats:
    """Compute (N, hz, wz) -> (4 hz, 4 wz, F), with each transposed convolution as a plain one over an input with zeros
    between its elements; taps are in raster order of the kernel.
    """
    x = z_hat.permute(1, 2, 0).numpy().astype(np.float32)
    for layer in layers[:-1]:
        height, width = 2 * x.shape[0], 2 * x.shape[1]
        spread = np.zeros((height, width, x.shape[2]), np.float32)
        spread[::2, ::2] = x
        taps = [(tap, gather(spread, 2 - tap // 5, 2 - tap % 5)) for tap in range(25)]
        start = layer.bias.repeat(height * width, 1).numpy()
        x = by_hand(layer, start, taps).reshape(height, width, -1)
    height, width, _ = x.shape
    taps = [(tap, gather(x, tap // 3 - 1, tap % 3 - 1)) for tap in range(9)]
    return by_hand(layers[-1], layers[-1].bias.repeat(height * width, 1).numpy(), taps).reshape(height, width, -1)


def context_by_hand(network: ExactContextNetwork, y_hat: Tensor, psi: Floats | None) -> Floats:
    """Compute (M, h, w) and (h, w, F) -> (h w, outputs), before the outputs are rounded to integers."""
    y = y_hat.permute(1, 2, 0).numpy()
    high = np.rint(y / 256) if np.abs(y).max() > 128 else np.zeros(y.shape)
    live = [(tap // 5 - 2, tap % 5 - 2) for tap in range(12)]
    layer, count = network.context, y[..., 0].size
    x = layer.bias.repeat(count, 1).numpy()
    for piece, unit in ((y - 256 * high, 1), (high, 256)):
        seen = np.concatenate([gather(piece, *offset) for offset in live], axis=1).astype(np.int64)
        sums = seen @ layer.integers()[0].long().numpy()
        assert np.abs(seen).max() <= 128
        assert np.abs(sums).max() < 2**24
        x = x + (sums * unit * layer.grid.numpy().astype(np.float64)).astype(np.float32)
    starts = [layer.bias.repeat(count, 1).numpy() for layer in network.layers]
    if network.from_psi is not None and psi is not None:
        bias = network.from_psi.bias.repeat(count, 1).numpy()
        starts[0] = by_hand(network.from_psi, bias, [(0, psi.reshape(count, -1))])
    for layer, start in zip(network.layers, starts, strict=True):
        x = by_hand(layer, start, [(0, x)])
    return x


@pytest.mark.parametrize("magnitude", [12, 128, 5000, 32768])
@pytest.mark.parametrize("has_psi", [True, False])
def test_outputs_equal_those_of_arithmetic_by_hand(magnitude: int, has_psi: bool) -> None:
    M, N = 3, 2
    h_s = HyperSynthesis(N, M, 2 * M, magnitudes=False)
    g_cm, g_ep = ContextPrediction(M), EntropyParameterNetwork(M, (4 if has_psi else 2) * M, 2 * M)
    for network in (h_s, g_cm, g_ep):
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.4)
    exact_h_s, context = ExactHyperSynthesis(h_s), ExactContextNetwork(g_cm, g_ep, has_psi)
    z_hat = torch.randint(-magnitude, magnitude + 1, (N, 2, 1), dtype=torch.int32)
    y_hat = torch.randint(-magnitude, magnitude + 1, (M, 7, 4), dtype=torch.int32)
    y_hat[:, 0, 0] = -magnitude

    psi = h_s_by_hand(exact_h_s.layers, z_hat)[:7, :4]
    ((_, flat),) = exact_h_s.strips(z_hat, 7, 4)
    assert np.array_equal(flat.numpy(), psi.reshape(28, -1))

    taps = []
    y = y_hat.permute(1, 2, 0).float()
    high = torch.round(y / 256) if magnitude > 128 else torch.zeros_like(y)
    for piece, unit in ((y - 256 * high, 1.0), (high, 256.0)):
        seen = [torch.from_numpy(gather(piece.numpy(), *offset)) for offset in context.offsets]
        taps.append(unit * torch.cat(seen, dim=1))
    pieces = taps if magnitude > 128 else taps[:1]
    expected = context_by_hand(context, y_hat, psi if has_psi else None)
    expected = np.clip(np.rint(expected * np.float32(4096)), -RAW_CLAMP, RAW_CLAMP)
    found = context.raw(pieces, context.precompute(flat) if has_psi else None)
    assert np.array_equal(found.numpy(), expected)


def test_raw_outputs_are_integers_clamped_on_both_sides() -> None:
    outputs = torch.tensor([0.0, 2.0**-13, 3 * 2.0**-13, -(2.0**-12), 1.23, 4096.0, 4097.0, -1e30, float("inf")])
    assert to_raw(outputs).tolist() == [0, 0, 2, -1, 5038, 2**24, 2**24, -(2**24), 2**24]


# --- it stays close to the float model --------------------------------------------------------------------------------


def float_outputs(variant: Variant, y_hat: Tensor, z_hat: Tensor | None) -> Tensor:
    model = model_of(variant)
    with torch.no_grad():
        features = [] if model.h_s is None else [model.h_s(z_hat)[..., :16, :16]]
        features += [] if model.g_cm is None else [model.g_cm(y_hat)]
        joined = torch.cat(features, dim=1)
        return (model.g_ep(joined) if model.g_ep is not None else joined)[0].flatten(1).T


@pytest.mark.parametrize("variant", [v for v in ALL if v.entropy_model != "factorized"][::3], ids=str)
def test_outputs_are_within_a_256th_of_the_largest_of_those_of_the_float_model(variant: Variant) -> None:
    """Measured deviations are at most 0.0033 of that output, 0.00016 in the median. test_codec tests the cost in
    rate."""
    model = model_of(variant)
    y_hat = torch.round(latents()[:1])
    with torch.no_grad():
        z_hat = torch.round(model.h_a(latents()[:1])) if model.h_a is not None else None
    raw = float_outputs(variant, y_hat, z_hat)
    found = raw_outputs(codec_of(variant), y_hat[0].int(), None if z_hat is None else z_hat[0].int()) * 2.0**-12
    error = (found - raw).abs()
    largest = float(raw.abs().max())
    assert float(error.max()) < 2.0**-8 * largest
    assert float(error.median()) < 2.0**-12 * largest


# --- what cannot be shown to be exact is refused ----------------------------------------------------------------------


def joint_networks(change: Callable[[nn.Module, nn.Module, nn.Module], object]) -> Callable[[], None]:
    h_s, g_cm, g_ep = HyperSynthesis(4, 6, 12, False), ContextPrediction(6), EntropyParameterNetwork(6, 24, 12)
    with torch.no_grad():
        change(h_s, g_cm, g_ep)

    def convert() -> None:
        ExactHyperSynthesis(h_s)
        ExactContextNetwork(g_cm, g_ep, has_psi=True)

    return convert


PICKS: list[tuple[str, Callable[..., nn.Module]]] = [
    (r"h_s\.0", lambda h_s, _cm, _ep: h_s[0]),
    (r"h_s\.4", lambda h_s, _cm, _ep: h_s[4]),
    ("g_cm", lambda _hs, g_cm, _ep: g_cm),
    (r"g_ep\.0", lambda _hs, _cm, g_ep: g_ep[0]),
    (r"g_ep\.2", lambda _hs, _cm, g_ep: g_ep[2]),
]


@pytest.mark.parametrize(("name", "pick"), PICKS)
@pytest.mark.parametrize("what", ["weight", "bias"])
def test_non_finite_weights_are_refused_with_the_layers_name(
    name: str, pick: Callable[..., nn.Module], what: str
) -> None:
    def spoil(*networks: nn.Module) -> None:
        # An unmasked weight of g_cm; masked ones are never used.
        getattr(pick(*networks), what).view(-1)[0] = float("nan")

    with pytest.raises(UnusableModelError, match=rf"^{name}: has weights that are not finite"):
        joint_networks(spoil)()


@pytest.mark.parametrize(("name", "pick"), PICKS)
def test_disproportionate_weights_are_refused_with_the_layers_name(name: str, pick: Callable[..., nn.Module]) -> None:
    convert = joint_networks(lambda *networks: pick(*networks).weight.view(-1)[:1].fill_(1e30))  # type: ignore[union-attr,operator]
    with pytest.raises(UnusableModelError, match=rf"^{name}: weights up to 1\.00e\+30 are too large"):
        convert()


def test_a_model_of_zeros_becomes_integers_and_gives_zeros() -> None:
    h_s = HyperSynthesis(4, 6, 12, False)
    for parameter in h_s.parameters():
        nn.init.zeros_(parameter)
    ((_, out),) = ExactHyperSynthesis(h_s).strips(torch.ones(4, 2, 2, dtype=torch.int32), 8, 8)
    assert out.shape == (64, 12)
    assert not out.any()


def test_masked_weights_of_the_context_prediction_do_not_matter() -> None:
    model = load_golden("joint")
    changed_model: CompressionModel = load_golden("joint")
    with torch.no_grad():
        changed_model.g_cm.weight.view(24, 12, 25)[:, :, 12:] += 5.0  # type: ignore[union-attr]
    assert Codec(changed_model).fingerprint == Codec(model).fingerprint
