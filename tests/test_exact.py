"""Exact arithmetic: equal to the last bit however it is computed, and equal to integers."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
import torch
from codec_models import ALL, GOLDEN, JOINT, MIXTURE, TESTS, Variant, codec_of, latents, model_of
from torch import Tensor, nn

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.exact import (
    ACTIVATION_CLAMP,
    EXACT_BOUND,
    LATENT_CLAMP,
    ExactContextNetwork,
    ExactHyperSynthesis,
    FixedPointLayer,
    FreezeError,
    freeze_layer,
)
from jahp_pl.codec.wavefront import _Frame
from jahp_pl.context import ContextPrediction, EntropyParameterNetwork
from jahp_pl.hyperprior import HyperSynthesis
from jahp_pl.model import CompressionModel

Integers = npt.NDArray[np.object_]


def raw_outputs(codec: Codec, y_hat: Tensor, z_hat: Tensor | None) -> Tensor:
    """Raw parameters of a whole frame, (positions, outputs)."""
    assert codec.latents is not None
    _, height, width = y_hat.shape
    frame = _Frame(codec.latents, height, width, z_hat)
    frame.fill(y_hat)
    return frame.raw(torch.arange(height * width))


def some_latents(variant: Variant, height: int = 9, width: int = 14) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    y_hat = torch.randint(-40, 41, (12, height, width), generator=generator, dtype=torch.int32)
    shape = (8, -(-height // 4), -(-width // 4))
    z_hat = torch.randint(-15, 16, shape, generator=generator, dtype=torch.int32)
    return y_hat, None if variant.rung == "context" else z_hat


# --- how it is computed does not matter -----------------------------------------------------------------------------


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS = {
    "1 thread": lambda: threads(1),
    "2 threads": lambda: threads(2),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "float64 by default": lambda: default_dtype(torch.float64),
    "oneDNN off": lambda: torch.backends.mkldnn.flags(enabled=False),
    "bfloat16 autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
}


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("scale_hyperprior"), Variant("context")], ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_raw_outputs_and_fingerprint_are_equal_under_every_setting_of_the_caller(
    variant: Variant, setting: str
) -> None:
    y_hat, z_hat = some_latents(variant)
    expected = raw_outputs(codec_of(variant), y_hat, z_hat)
    with SETTINGS[setting]():
        codec = Codec(model_of(variant))
        assert codec.fingerprint == codec_of(variant).fingerprint
        assert torch.equal(raw_outputs(codec, y_hat, z_hat), expected)


def test_any_set_of_positions_in_any_order_gives_the_same_rows() -> None:
    y_hat, z_hat = some_latents(JOINT)
    coder = codec_of(JOINT).latents
    assert coder is not None
    frame = _Frame(coder, 9, 14, z_hat)
    frame.fill(y_hat)
    everything = frame.raw(torch.arange(9 * 14))
    for count in (1, 2, 3, 7, 16, 33, 100):
        chosen = torch.randperm(9 * 14)[:count]
        assert torch.equal(frame.raw(chosen), everything[chosen])


def test_psi_of_a_part_of_the_frame_is_that_of_the_whole() -> None:
    """Two z around a position decide psi, so what lies further away may change nothing."""
    coder = codec_of(JOINT).latents
    assert coder is not None
    assert coder.h_s is not None
    z_hat = torch.randint(-15, 16, (8, 12, 3), dtype=torch.int32)
    whole = coder.h_s(z_hat, 48, 12).view(48, 12, -1)
    part = coder.h_s(z_hat[:, :6], 24, 12).view(24, 12, -1)
    assert torch.equal(whole[:14], part[:14])


CHILD = """
import hashlib, sys
sys.path.insert(0, {tests!r})
from test_exact import summary
print(summary())
"""


def summary() -> str:
    """SHA-256 over the raw outputs, fingerprints and payloads of fixed latents under every kind of model."""
    from jahp_pl.codec.coder import Writer

    digest = hashlib.sha256()
    for name in ("joint", "mixture"):
        codec = Codec(load(name))
        assert codec.prior is not None
        assert codec.latents is not None
        y_hat, z_hat = some_latents(JOINT)
        assert z_hat is not None
        raw = raw_outputs(codec, y_hat, z_hat) + 0.0  # the sign of a zero is not part of the promise
        writer = Writer()
        codec.prior.write(writer, z_hat)
        codec.latents.write(writer, y_hat, z_hat)
        stored = codec.decode((GOLDEN / f"{name}.jahp").read_bytes())
        digest.update(raw.numpy().tobytes() + codec.fingerprint + writer.payload() + stored.y_hat.numpy().tobytes())
    return digest.hexdigest()


def load(name: str) -> CompressionModel:
    from codec_models import load_golden

    return load_golden(name)


@pytest.mark.parametrize(
    "environment",
    [
        {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"},
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    ],
    ids=["oldest instructions", "other instructions and two threads"],
)
def test_another_process_with_other_kernels_gives_the_same_bytes(environment: dict[str, str]) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(tests=str(TESTS))],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == summary()


# --- it equals integer arithmetic -----------------------------------------------------------------------------------


def as_integers(tensor: Tensor) -> Integers:
    return np.array([int(v) for v in tensor.flatten().tolist()], dtype=object).reshape(tensor.shape)


def activate(layer: FixedPointLayer, sums: Integers) -> Integers:
    """Python integers and IEEE doubles, one number at a time."""

    def one(total: int) -> int:
        assert abs(total) < EXACT_BOUND
        sloped = float(total) if total >= 0 or layer.activation.slope == 1.0 else float(total) * layer.activation.slope
        return max(-ACTIVATION_CLAMP, min(ACTIVATION_CLAMP, round(math.ldexp(sloped, -layer.shift))))

    return np.array([one(int(v)) for v in sums.ravel()], dtype=object).reshape(sums.shape)


def oracle_h_s(layers: list[FixedPointLayer], z_hat: Tensor) -> Integers:
    """(N, hz, wz) -> (F, 4 hz, 4 wz) by scattering every input over its 5x5 outputs, in Python integers."""
    x = as_integers(z_hat.clamp(-LATENT_CLAMP, LATENT_CLAMP))
    for layer in layers[:-1]:
        weight = as_integers(layer.weight)  # (in, out, 5, 5)
        _, height, width = x.shape
        out = np.zeros((weight.shape[1], 2 * height + 3, 2 * width + 3), dtype=object)
        for i in range(height):
            for j in range(width):
                out[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5] += np.einsum("c,cokl->okl", x[:, i, j], weight)
        x = activate(layer, out[:, 2:-1, 2:-1] + as_integers(layer.bias)[:, None, None])
    weight = as_integers(layers[-1].weight)  # (out, in, 3, 3)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    sums = np.zeros((weight.shape[0], *x.shape[1:]), dtype=object)
    for k in range(3):
        for m in range(3):
            window = padded[:, k : k + x.shape[1], m : m + x.shape[2]]
            sums += np.einsum("oc,chw->ohw", weight[:, :, k, m], window)
    return activate(layers[-1], sums + as_integers(layers[-1].bias)[:, None, None])


def oracle_context(network: ExactContextNetwork, g_cm: FixedPointLayer, y_hat: Tensor, psi: Integers) -> Integers:
    """(M, h, w) and (F, h, w) -> (outputs, h, w), in Python integers, with the full masked 5x5 kernel."""
    y = np.pad(as_integers(y_hat.clamp(-LATENT_CLAMP, LATENT_CLAMP)), ((0, 0), (2, 2), (2, 2)))
    weight = as_integers(g_cm.weight)
    _, height, width = y_hat.shape
    sums = np.zeros((weight.shape[0], height, width), dtype=object)
    for k in range(5):
        for m in range(5):
            sums += np.einsum("oc,chw->ohw", weight[:, :, k, m], y[:, k : k + height, m : m + width])
    x = np.concatenate([psi, activate(g_cm, sums + as_integers(g_cm.bias)[:, None, None])])
    for layer in network.layers:
        sums = np.einsum("io,ihw->ohw", as_integers(layer.weight), x)
        x = activate(layer, sums + as_integers(layer.bias)[:, None, None])
    return x


@pytest.mark.parametrize("magnitude", [12, 5000], ids=["usual latents", "latents beyond the clamp"])
def test_outputs_equal_those_of_python_integers(magnitude: int) -> None:
    M, N = 3, 2
    h_s = HyperSynthesis(N, M, 2 * M, magnitudes=False)
    g_cm, g_ep = ContextPrediction(M), EntropyParameterNetwork(M, 4 * M, 2 * M)
    for network in (h_s, g_cm, g_ep):
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.4 if magnitude < 100 else 0.03)
    exact_h_s, exact_context = ExactHyperSynthesis(h_s), ExactContextNetwork(g_cm, g_ep)
    z_hat = torch.randint(-magnitude, magnitude + 1, (N, 2, 1), dtype=torch.int32)
    y_hat = torch.randint(-magnitude, magnitude + 1, (M, 7, 4), dtype=torch.int32)
    z_hat[:, 0, 0], y_hat[:, 0, 0] = magnitude, -magnitude

    psi = oracle_h_s(exact_h_s.layers, z_hat)[:, :7, :4]
    flat = exact_h_s(z_hat, 7, 4)
    assert as_integers(flat.T.reshape(2 * M, 7, 4)).tolist() == psi.tolist()

    padded = torch.zeros(M, 7 + 4, 4 + 4, dtype=torch.float64)
    padded[:, 2:-2, 2:-2] = y_hat
    rows, columns = torch.meshgrid(torch.arange(7) + 2, torch.arange(4) + 2, indexing="ij")
    raw = exact_context.raw(
        padded.flatten(1).T.contiguous(), (rows * 8 + columns).flatten(), 8, exact_context.precompute(flat)
    )
    frozen = freeze_layer("g_cm", g_cm, 1.0, 0, weight=g_cm.weight * g_cm.mask)
    expected = oracle_context(exact_context, frozen, y_hat, psi)
    assert as_integers(raw.T.reshape(2 * M, 7, 4)).tolist() == expected.tolist()


def test_an_activation_beyond_the_clamp_is_clamped_on_both_sides() -> None:
    layer = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([100.0, -100.0]).view(2, 1, 1, 1))
        layer.bias.zero_()
    frozen = freeze_layer("wide", layer, 1.0, 0)
    sums = frozen.weight.flatten() * LATENT_CLAMP + frozen.bias
    assert frozen.activation(sums, frozen.shift).tolist() == [ACTIVATION_CLAMP, -ACTIVATION_CLAMP]


# --- it stays close to the float model ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [v for v in ALL if v.rung != "factorized"][::3], ids=str)
def test_fixed_point_is_within_four_thousandths_of_the_float_model(variant: Variant) -> None:
    """Latents and outputs up to about 20; measured: at most 0.0016, half of the outputs within 0.00014."""
    model = model_of(variant)
    y_hat = torch.round(latents()[:1])
    with torch.no_grad():
        z_hat = torch.round(model.h_a(latents()[:1])) if model.h_a is not None else None
        features = [] if model.h_s is None else [model.h_s(z_hat)[..., :16, :16]]
        features += [] if model.g_cm is None else [model.g_cm(y_hat)]
        joined = torch.cat(features, dim=1)
        raw = model.g_ep(joined) if model.g_ep is not None else joined
    exact = raw_outputs(codec_of(variant), y_hat[0].int(), None if z_hat is None else z_hat[0].int()) * 2.0**-12
    error = (exact - raw[0].flatten(1).T).abs()
    assert float(error.max()) < 0.004
    assert float(error.median()) < 0.0004


# --- what cannot be shown to be exact is refused --------------------------------------------------------------------


def joint_networks(change: Callable[[nn.Module, nn.Module, nn.Module], None]) -> Callable[[], None]:
    h_s, g_cm, g_ep = HyperSynthesis(4, 6, 12, False), ContextPrediction(6), EntropyParameterNetwork(6, 24, 12)
    with torch.no_grad():
        change(h_s, g_cm, g_ep)

    def freeze() -> None:
        ExactHyperSynthesis(h_s)
        ExactContextNetwork(g_cm, g_ep)

    return freeze


@pytest.mark.parametrize(
    ("name", "pick"),
    [
        (r"h_s\.0", lambda h_s, _cm, _ep: h_s[0]),
        (r"h_s\.4", lambda h_s, _cm, _ep: h_s[4]),
        ("g_cm", lambda _hs, g_cm, _ep: g_cm),
        (r"g_ep\.2", lambda _hs, _cm, g_ep: g_ep[2]),
    ],
)
@pytest.mark.parametrize("what", ["weight", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_the_layers_name(
    name: str, pick: Callable[..., nn.Module], what: str, value: float
) -> None:
    freeze = joint_networks(lambda *networks: getattr(pick(*networks), what).view(-1)[-1:].fill_(value))
    with pytest.raises(FreezeError, match=rf"^{name}: has weights that are not finite"):
        freeze()


def test_a_bias_out_of_proportion_is_refused_by_the_layers_name_and_channel() -> None:
    freeze = joint_networks(lambda _hs, _cm, g_ep: g_ep[2].bias[5:6].fill_(1e9))
    with pytest.raises(FreezeError, match=r"^g_ep\.2: output channel 5 can reach .* more than the 2\^53"):
        freeze()


def test_a_layer_of_too_many_inputs_is_refused() -> None:
    layer = nn.Conv2d(2**15, 1, 1)
    nn.init.ones_(layer.weight)
    with pytest.raises(FreezeError, match=r"^broad: output channel 0 can reach"):
        freeze_layer("broad", layer, 1.0, input_fraction=12)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8, 1e6, 1e30])
def test_the_proved_bound_holds_for_weights_of_any_size(scale: float) -> None:
    layer = nn.Conv2d(40, 5, 1)
    with torch.no_grad():
        layer.weight.mul_(scale)
        layer.bias.mul_(min(scale, 1.0))
    frozen = freeze_layer("any", layer, 0.01, input_fraction=12)
    assert torch.equal(frozen.weight, frozen.weight.round())
    assert torch.equal(frozen.bias, frozen.bias.round())
    worst = [sum(abs(int(v)) for v in row) * ACTIVATION_CLAMP for row in frozen.weight.flatten(1).tolist()]
    assert max(w + abs(int(b)) for w, b in zip(worst, frozen.bias.tolist(), strict=True)) < EXACT_BOUND
    sums = frozen.weight.flatten(1).abs().sum(1) * ACTIVATION_CLAMP + frozen.bias
    for sign in (1, -1):
        assert bool(torch.isfinite(frozen.activation(sign * sums, frozen.shift)).all())


def test_a_model_of_zeros_freezes_and_gives_zeros() -> None:
    h_s = HyperSynthesis(4, 6, 12, False)
    for parameter in h_s.parameters():
        nn.init.zeros_(parameter)
    out = ExactHyperSynthesis(h_s)(torch.ones(4, 2, 2, dtype=torch.int32), 8, 8)
    assert out.shape == (64, 12)
    assert not out.any()
