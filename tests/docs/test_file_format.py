"""docs/file-format.md suffices to write a reader: the one in this file uses plain integers and single float32
additions, and shares no code with the codec.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from jahp_pl.codec.bitstream import VERSION, Header, pack, with_icc
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latents import Encoded
from jahp_pl.codec.limits import ACCEPTED_PIXELS, max_steps
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import WEIGHTS
from jahp_pl.model_io.load import load_model
from tests.support.codec_models import GOLDEN, Variant, kodak_crop, load_golden, variable_codec

PAGE = (Path(__file__).parents[2] / "docs" / "file-format.md").read_text()
FIELDS = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", PAGE, re.MULTILINE)[2:]]
TOP = 2**24
WRITTEN_OUT = [
    Variant("factorized"), Variant("scale_hyperprior", "logistic"), Variant("mean_scale_hyperprior", "laplace", 3),
    Variant("context", "logistic"), Variant("joint", "gaussian", 3), Variant("joint", "logistic"), Variant("joint"),
]  # fmt: skip
"""All entropy models and families, with and without mixtures."""


class Coded(NamedTuple):
    """File with the tensors of its model, as in an export, and the encoded latents."""

    variant: Variant
    tensors: dict[str, np.ndarray]
    codec: Codec
    encoded: Encoded[torch.Tensor]


@pytest.fixture(scope="module", params=WRITTEN_OUT, ids=str)
def coded(request, tmp_path_factory) -> Coded:
    """The latents of a photograph under untrained densities, some beyond every table and all windows."""
    torch.manual_seed(5)
    model = CompressionModel(request.param.config()).eval()
    model.g_a.load_state_dict(load_golden("joint").g_a.state_dict())
    with torch.no_grad():
        if model.config.entropy_model == "factorized":
            model.g_a[-1].bias[2] += 3000
        else:
            model.g_a[-1].bias[2] += 300
        if model.h_a is not None:
            model.h_a[-1].weight.mul_(100)
            model.h_a[-1].bias[3] -= 3000
    folder = tmp_path_factory.mktemp("export") / "m"
    codec = export(model, folder, {})
    encoded = codec.encode(kodak_crop()[:77, :120])  # ŷ of 5 x 8, ẑ of 2 x 2
    tensors = safetensors.numpy.load((folder / WEIGHTS).read_bytes())
    return Coded(request.param, tensors, codec, encoded)


class Words:
    """The range decoder that the page describes."""

    def __init__(self, payload: bytes) -> None:
        self.words = [int.from_bytes(payload[i : i + 4], "little") for i in range(0, len(payload), 4)]
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def symbol(self, partition: list[int]) -> int:
        scale = self.range >> 24
        q = (self.point - self.lower) % 2**64 // scale
        assert q < TOP
        k = int(np.searchsorted(partition, q, side="right")) - 1
        self.lower = (self.lower + scale * partition[k]) % 2**64
        self.range = scale * (partition[k + 1] - partition[k])
        if self.range < 2**32:
            self.lower, self.range = (self.lower << 32) % 2**64, self.range << 32
            self.point = (self.point << 32) % 2**64 | self.word()
        return k


def equal_chances(n: int) -> list[int]:
    return [k * (TOP // n) for k in range(n)] + [TOP]


PLAIN = equal_chances(2**16)


def partition_of(masses: list[float]) -> list[int]:
    f = (TOP - len(masses)) / sum(masses)
    starts = np.concatenate([[0.0], np.cumsum(masses)[:-1]])
    return [*(math.floor(start * f) + k for k, start in enumerate(starts)), TOP]


def read_tables(words: Words, tensors: dict[str, np.ndarray], height: int, width: int) -> np.ndarray:
    channels, start = [], 0
    for size, lowest in zip(tensors["tables.prior.sizes"], tensors["tables.prior.lowest"], strict=True):
        partition = partition_of(tensors["tables.prior.masses"][start : start + int(size)].tolist())
        start += int(size)
        entries = [words.symbol(partition) for _ in range(height * width)]
        values = [entry + int(lowest) for entry in entries]
        for position, entry in enumerate(entries):
            if entry == size - 1:
                unsigned = words.symbol(PLAIN) << 16 | words.symbol(PLAIN)
                values[position] = unsigned - 2**32 if unsigned >= 2**31 else unsigned
        channels.append(values)
    return np.array(channels).reshape(-1, height, width)


class Layer(NamedTuple):
    """Frozen layer, in the page's notation."""

    W: np.ndarray
    """(taps, inputs, outputs) integers."""
    b: np.ndarray
    gamma: np.ndarray
    slope: float

    def add(self, u: np.ndarray, tap: int, a: np.ndarray, q: float) -> np.ndarray:
        """Sum Python integers of any size, then perform one float32 addition."""
        P = a.astype(int).astype(object) @ self.W[tap].astype(object)
        assert all(abs(one) < 2**24 for one in P)
        term = P.astype(np.float64) * q * self.gamma
        assert np.array_equal(term.astype(np.float32), term), "without rounding"
        return u + term.astype(np.float32)

    def activate(self, u: np.ndarray) -> np.ndarray:
        return u if self.slope == 1 else np.where(u > 0, u, u * np.float32(self.slope))


def frozen(w: np.ndarray, b: np.ndarray, slope: float, A: int = 2**10) -> Layer:
    """Freeze weights w (taps, inputs, outputs) and biases b (outputs,)."""
    w = w.astype(np.float64)
    S = np.abs(w).sum(axis=1).max(axis=0)
    R = 2**24 // A - w.shape[1] // 2 - 1
    exponents = [max(next(e for e in range(-200, 33) if 2.0**e > one / R), -32) if one else 0 for one in S]
    gamma = 2.0 ** np.array(exponents)
    return Layer(np.rint(w / gamma), b.astype(np.float32), gamma, slope)


def as_integers(x: np.ndarray) -> tuple[np.ndarray, float]:
    largest = float(np.abs(x).max())
    p = 2.0 ** (math.frexp(min(max(largest, 2.0**-40), 2.0**40))[1] - 1)
    q = p / 2**9
    return np.clip(np.rint(x.astype(np.float64) / q), -(2**10), 2**10), q


def by_tap(kernel: np.ndarray, transposed: bool) -> np.ndarray:
    """Arrange weights as (taps, inputs, outputs)."""
    kernel = kernel.transpose(2, 3, 0, 1) if transposed else kernel.transpose(2, 3, 1, 0)
    return kernel.reshape(-1, *kernel.shape[2:])


def convolve(x: np.ndarray, layer: Layer, transposed: bool) -> np.ndarray:
    """Convolve (height, width, inputs) -> (height, width, outputs), twice as high and wide if transposed."""
    height, width, _ = x.shape
    factor, side = (2, 5) if transposed else (1, 3)
    u = np.tile(layer.b, (factor * height, factor * width, 1))
    for tap in range(side**2):
        for i in range(height):
            for j in range(width):
                k, l = divmod(tap, side)  # noqa: E741
                row, column = (2 * i - 2 + k, 2 * j - 2 + l) if transposed else (i + 1 - k, j + 1 - l)
                if 0 <= row < u.shape[0] and 0 <= column < u.shape[1]:
                    u[row, column] = layer.add(u[row, column], tap, *as_integers(x[i, j]))
    return layer.activate(u)


def layers_of(variant: Variant, tensors: dict[str, np.ndarray]) -> dict[str, Layer]:
    """Return the layers in the order of the fingerprint."""
    hyper_slope = 0.0 if variant.entropy_model == "scale_hyperprior" else 0.01
    result = {}
    if "h_s.0.weight" in tensors:
        for number, slope in ((0, hyper_slope), (2, hyper_slope), (4, 1.0)):
            taps = by_tap(tensors[f"h_s.{number}.weight"], transposed=number < 4)
            result[f"h_s.{number}"] = frozen(taps, tensors[f"h_s.{number}.bias"], slope)
    if "g_cm.weight" in tensors:
        live = tensors["g_cm.weight"].transpose(2, 1, 0)  # by tap
        assert len(live) == 12
        result["g_cm"] = frozen(live.reshape(1, -1, live.shape[-1]), tensors["g_cm.bias"], 1.0, 2**7)
        split = tensors["g_ep.0.weight"].shape[1] - live.shape[-1]
        first, bias = by_tap(tensors["g_ep.0.weight"], transposed=False), tensors["g_ep.0.bias"]
        result["g_ep.0"] = frozen(first[:, split:], np.zeros_like(bias) if split else bias, 0.01)
        for number, slope in ((2, 0.01), (4, 1.0)):
            taps = by_tap(tensors[f"g_ep.{number}.weight"], transposed=False)
            result[f"g_ep.{number}"] = frozen(taps, tensors[f"g_ep.{number}.bias"], slope)
        if split:
            result["g_ep.0 of h_s"] = frozen(first[:, :split], bias, 1.0)
    return result


def outputs_at(layers: dict[str, Layer], features: np.ndarray | None, y: np.ndarray, i: int, j: int) -> np.ndarray:
    """Compute the outputs of g_ep at one position from latents y (height, width, M)."""
    height, width, M = y.shape
    places = [(i + k - 2, j + l - 2) for k in range(5) for l in range(5)][:12]  # noqa: E741
    seen = np.concatenate([
        y[row, column] if 0 <= row < height and 0 <= column < width else np.zeros(M, int) for row, column in places
    ])  # fmt: skip
    high = np.rint(seen / 2**8)
    g_cm = layers["g_cm"]
    u = g_cm.add(g_cm.add(g_cm.b, 0, seen - 2**8 * high, 1.0), 0, high, 2.0**8)
    start = layers["g_ep.0"].b
    if features is not None:
        of_h_s = layers["g_ep.0 of h_s"]
        start = of_h_s.add(of_h_s.b, 0, *as_integers(features[i, j]))
    for name in ("g_ep.0", "g_ep.2", "g_ep.4"):
        u = layers[name].activate(layers[name].add(start if name == "g_ep.0" else layers[name].b, 0, *as_integers(u)))
    return u


def cumulatives(variant: Variant, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Return the cumulatives of each scale from -e to e."""
    both, position = [], 0
    for sigma in tensors["tables.latents.scales"].tolist():
        r = next(r for r in range(1, 9) if r == 8 or 2.0**r >= 32 / sigma)
        size = math.ceil(RHO[variant.family] * sigma * 2**r) + 1
        upper = tensors["tables.latents.cumulative"][position : position + size].astype(np.float64)
        both += [TOP - upper[:0:-1], upper]
        position += size
    assert position == len(tensors["tables.latents.cumulative"])
    return np.concatenate(both)


class Window(NamedTuple):
    kind: int
    first: int
    partition: list[int]


RHO = {"gaussian": 5.5, "laplace": 18.0, "logistic": 18.0}
KAPPA = {"gaussian": 4.2, "laplace": 10.4, "logistic": 11.1}
HALVES = (3, 15, 63, 255, 1023)


def windows(variant: Variant, tensors: dict[str, np.ndarray], outputs: np.ndarray) -> list[Window]:
    """Compute one window per channel from the outputs at a position."""
    K, scales = variant.num_components, tensors["tables.latents.scales"].tolist()
    raw = np.clip(np.rint(outputs * np.float32(2**12)), -TOP, TOP).astype(int)
    num_blocks = 1 + (variant.entropy_model != "scale_hyperprior") + (K > 1)
    blocks = raw.reshape(num_blocks, K, -1)
    resolution = [next(r for r in range(1, 9) if r == 8 or 2.0**r >= 32 / sigma) for sigma in scales]
    extent = [math.ceil(RHO[variant.family] * sigma * 2**r) for sigma, r in zip(scales, resolution, strict=True)]
    start = np.cumsum([0, *(2 * e + 1 for e in extent)])
    cumulative = cumulatives(variant, tensors)
    result = []
    for channel in range(blocks.shape[-1]):
        components, low, high = [], [], []
        for component in range(K):
            s = int((tensors["tables.latents.thresholds"] < blocks[0, component, channel]).sum())
            r = resolution[s]
            mu = round(int(blocks[1, component, channel]) * 2.0 ** (r - 12)) if num_blocks > 1 + (K > 1) else 0
            g = 1
            if K > 1:
                gap = int(blocks[-1, :, channel].max() - blocks[-1, component, channel])
                g = int(tensors["tables.latents.exponential"][min(round(gap / 64), 1024)])
            c, h = math.floor(mu / 2**r + 1 / 2), math.ceil(KAPPA[variant.family] * scales[s])
            components.append((s, r, mu, g))
            if K == 1 or g >= 16:
                low.append(c - h)
                high.append(c + h)
        center = (min(low) + max(high)) // 2
        kind = next(k for k in range(5) if k == 4 or HALVES[k] >= max(high) - center)
        v = np.arange(center - HALVES[kind], center + HALVES[kind] + 2)
        masses = np.zeros(len(v) - 1)
        for s, r, mu, g in components:
            d = np.clip((2 * v - 1) * 2 ** (r - 1) - mu, -extent[s], extent[s])
            masses += g * np.diff(cumulative[start[s] + extent[s] + d])
        T = TOP * sum(g for _, _, _, g in components)
        partition = partition_of([*masses.tolist(), max(T - masses.sum(), T / 2**16)])
        result.append(Window(kind, int(v[0]), partition))
    return result


class Latents(NamedTuple):
    """Content of a payload."""

    y: np.ndarray
    """(M, height, width)."""
    z: np.ndarray
    """(N, ceil(height / 4), ceil(width / 4)); empty without side information."""
    escapes: int
    """Number of latents y that are escapes."""


def read_latents(words: Words, coded: Coded, height: int, width: int, a: int, b: int) -> Latents:
    variant, tensors, z = coded.variant, coded.tensors, np.zeros((0, 0, 0), int)
    if variant.entropy_model == "factorized":
        return Latents(read_tables(words, tensors, height, width), z, 0)
    layers, features, escapes = layers_of(variant, tensors), None, 0
    if "h_s.0" in layers:
        z = read_tables(words, tensors, -(-height // 4), -(-width // 4))
        features = np.clip(z, -TOP, TOP).astype(np.float32).transpose(1, 2, 0)
        for name, transposed in (("h_s.0", True), ("h_s.2", True), ("h_s.4", False)):
            features = convolve(features, layers[name], transposed)
    y = np.zeros((height, width, coded.encoded.y_hat.shape[0]), int)
    positions = [(i, j) for i in range(height) for j in range(width)]
    if "g_cm" in layers:
        times = sorted({j + 3 * i for i, j in positions})
        steps = [[(i, j) for i, j in positions if j + 3 * i == t] for t in times]
    else:
        steps = [positions[k : k + 1024] for k in range(0, len(positions), 1024)]
    for step in steps:
        found = {}
        for i, j in step:
            outputs = outputs_at(layers, features, y, i, j) if "g_cm" in layers else features[i, j]
            found |= {(i, j, m): window for m, window in enumerate(windows(variant, tensors, outputs))}
        for kind in range(5):
            of_kind = [(place, window) for place, window in found.items() if window.kind == kind]
            escaped = []
            for place, window in of_kind:
                entry = words.symbol(window.partition)
                y[place] = window.first + entry
                if entry == len(window.partition) - 2:
                    escaped.append(place)
            for place in escaped:
                y[place] = a + (words.symbol(equal_chances(b - a + 1)) if b > a else 0)
            escapes += len(escaped)
    return Latents(y.transpose(2, 0, 1), z, escapes)


class Reading(NamedTuple):
    values: dict[str, int]
    fingerprint: bytes
    profile: bytes
    payload: bytes


def read_header(data: bytes) -> Reading:
    """Read the fields in the order of the page's table."""
    position, values, plain = 0, {}, {}
    for name, size, content in FIELDS:
        if "version 2 only" in content and plain["version"] == bytes([1]):
            continue
        if "bit 0 of the flags is set" in content and not values.get("flags", 0) & 1:
            continue
        if "varint" in content:
            value = shift = 0
            while True:
                byte = data[position]
                value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
                if byte < 128:
                    break
            values[name] = (value // 2 if value % 2 == 0 else -(value + 1) // 2) if "zigzag" in content else value
        else:
            length = values[size] if size in values else int(size)
            plain[name] = data[position : position + length]
            position += length
    assert position == len(data)
    assert plain["magic"] == b"jahp"
    assert plain["version"] == bytes([2 if "flags" in values else 1])
    behind = plain["profile"] + plain["payload"]
    everything_else = data[: -len(behind) - 4] + behind
    assert int.from_bytes(plain["checksum"], "little") == zlib.crc32(everything_else)
    return Reading(values, plain["fingerprint"], plain["profile"], plain["payload"])


def test_the_page_is_of_the_version_that_is_written():
    assert f"version {VERSION}\n" in PAGE.splitlines(keepends=True)[0]
    assert [field[0] for field in FIELDS] == [
        "magic", "version", "fingerprint", "flags", "level", "width", "height", "smallest latent", "span",
        "profile length", "length", "checksum", "profile", "payload",
    ]  # fmt: skip


def test_level_and_gray_are_where_the_page_says():
    for level, is_gray in ((None, False), (0, False), (1792, True), (None, True)):
        values = read_header(pack(Header(b"8 bytes!", 300, 200, -5, 9, b"", level, is_gray), b"payload.")).values
        assert values.get("level") == level
        assert bool(values.get("flags", 0) & 2) == is_gray
        assert ("flags" in values) == (level is not None or is_gray)


def test_latents_are_scaled_as_the_page_says():
    gains = variable_codec().model.gains
    level = 1.375
    a, o = gains.gain.double().numpy(), gains.offset.double().numpy()
    i = min(int(level), len(a) - 2)
    t = level - i
    expected = np.exp((1 - t) * (o[i] - a[i]) + t * (o[i + 1] - a[i + 1]))
    assert np.allclose(variable_codec().transforms.gain_after(level).numpy(), expected, rtol=1e-5)


def test_a_profile_is_where_the_page_says():
    plain = pack(Header(b"8 bytes!", 300, 200, -5, 9), b"payload.")
    profiled = read_header(with_icc(plain, b"an ICC profile" * 50))
    assert zlib.decompress(profiled.profile) == b"an ICC profile" * 50
    assert profiled.payload == b"payload."
    assert read_header(plain).profile == b""


def test_a_reader_written_from_the_page_gets_every_latent(coded):
    reading = read_header(coded.encoded.data)
    values, words = reading.values, Words(reading.payload)
    assert (values["width"], values["height"]) == (120, 77)
    a = values["smallest latent"]
    y, z, escapes = read_latents(words, coded, 5, 8, a, a + values["span"])
    assert np.array_equal(y, coded.encoded.y_hat.numpy())
    assert (y.min(), y.max()) == (a, a + values["span"])
    if coded.encoded.z_hat is not None:
        assert np.array_equal(z, coded.encoded.z_hat.numpy())
    assert not words.words
    if coded.variant.entropy_model != "factorized":
        assert escapes >= 40, "none behind a window"
        assert y.max() > 128, "no high piece"
    if coded.variant.entropy_model != "context":
        table = y if coded.variant.entropy_model == "factorized" else z
        size, lowest = (coded.tensors[f"tables.prior.{name}"] for name in ("sizes", "lowest"))
        assert (table < lowest[:, None, None]).any() or (table >= (lowest + size - 1)[:, None, None]).any(), "no escape"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_weights_are_as_the_page_says(dtype, tmp_path):
    export(load_golden("joint"), tmp_path / "m", {}, dtype=dtype)
    tensors = safetensors.torch.load_file(tmp_path / "m" / WEIGHTS)
    for name, wanted in load_model(tmp_path / "m").state_dict().items():
        meant = tensors[name].double()
        if f"{name}.exponent" in tensors:
            assert dtype == "int8"
            meant = meant * 2.0 ** tensors[f"{name}.exponent"].double()
        live = wanted.flatten(2)[:, :, :12] if name == "g_cm.weight" else wanted
        assert torch.equal(meant, live.double()), name


@pytest.mark.parametrize("name", ["joint", "mixture", "variable"])
def test_a_reader_written_from_the_page_reads_the_golden_files(name, tmp_path):
    codec = export(load_golden(name), tmp_path / "m", {})
    tensors = safetensors.numpy.load((tmp_path / "m" / WEIGHTS).read_bytes())
    data = (GOLDEN / f"{name}.jahp").read_bytes()
    decoded, reading = codec.decode(data), read_header(data)
    variant = Variant("joint", "gaussian", 3 if name == "mixture" else 1)
    height, width = (-(-reading.values[side] // 16) for side in ("height", "width"))
    a = reading.values["smallest latent"]
    coded = Coded(variant, tensors, codec, Encoded(data, decoded.y_hat, decoded.z_hat, 0))
    y, z, _ = read_latents(Words(reading.payload), coded, height, width, a, a + reading.values["span"])
    sums = (GOLDEN / "SHA256SUMS").read_text()
    for array, key in ((y, "y_hat"), (z, "z_hat")):
        assert f"{hashlib.sha256(array.astype('<i4').tobytes()).hexdigest()}  {name}.{key}\n" in sums


def test_the_fingerprint_covers_what_the_page_says(coded):
    variant, tensors = coded.variant, coded.tensors
    digest = hashlib.sha256(repr((variant.entropy_model, 8, 12, variant.family, variant.num_components)).encode())

    def add(array: np.ndarray, kind: str = "<f8") -> None:
        digest.update(np.ascontiguousarray(array.astype(kind)).tobytes())

    for number in range(7):
        for name in ("weight", "bias") if number % 2 == 0 else ("beta", "gamma"):
            add(tensors[f"g_s.{number}.{name}"], "<f4")
    if variant.entropy_model != "context":
        add(tensors["tables.prior.lowest"])
        add(tensors["tables.prior.masses"])
    if variant.entropy_model != "factorized":
        for name in ("scales", "thresholds"):
            add(tensors[f"tables.latents.{name}"])
        add(cumulatives(variant, tensors))
        add(tensors["tables.latents.exponential"])
    for layer in layers_of(variant, tensors).values():
        for array in (layer.W, layer.b, layer.gamma):
            add(array, "<f4")
        add(np.array(layer.slope))
    assert digest.digest()[:8] == coded.codec.fingerprint == read_header(coded.encoded.data).fingerprint


def test_the_header_has_the_sizes_that_the_page_gives():
    text = " ".join(PAGE.split())
    smallest = len(pack(Header(b"8 bytes!", 1, 1, 0, 0), b""))
    usual = len(pack(Header(b"8 bytes!", 16383, 16383, -63, 63, b"", 7 * 256, True), bytes(2**21 - 4))) - (2**21 - 4)
    assert f"{smallest} to 41 bytes; {usual} at most" in text
    assert 41 == 4 + 1 + 8 + 1 + 3 + 5 * 3 + 5 + 4
    assert ACCEPTED_PIXELS == 2**25
    assert "accepts 2^25 pixels" in text
    assert f"and {max_steps(ACCEPTED_PIXELS)} decoding steps" in text
