"""docs/file-format.md is enough to write a reader from: here is one, in plain integers, that shares no code with the
codec."""

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
import torch
from codec_models import Variant, kodak_crop, load_golden

from jahp_pl.codec.bitstream import MAX_PIXELS, VERSION, Header, pack, with_icc
from jahp_pl.codec.codec import Codec, Encoded
from jahp_pl.export import WEIGHTS, export
from jahp_pl.model import CompressionModel

PAGE = (Path(__file__).parents[1] / "docs" / "file-format.md").read_text()
FIELDS = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", PAGE, re.MULTILINE)[2:]]
TOP = 2**24
WRITTEN_OUT = [
    Variant("factorized"), Variant("scale_hyperprior", "logistic"), Variant("mean_scale_hyperprior", "laplace", 3),
    Variant("context", "logistic"), Variant("joint", "gaussian", 3), Variant("joint", "logistic"),
]  # fmt: skip
"""All rungs; the families that the page defines without constriction."""


class Coded(NamedTuple):
    """A file, the tensors of its model as an export holds them, and what went in."""

    variant: Variant
    tensors: dict[str, np.ndarray]
    codec: Codec
    encoded: Encoded


@pytest.fixture(scope="module", params=WRITTEN_OUT, ids=str)
def coded(request, tmp_path_factory) -> Coded:
    """The latents of a photograph under untrained densities, some beyond every table."""
    torch.manual_seed(5)
    model = CompressionModel(request.param.config()).eval()
    model.g_a.load_state_dict(load_golden("joint").g_a.state_dict())
    with torch.no_grad():
        if model.config.rung == "factorized":
            model.g_a[-1].bias[2] += 3000
        elif model.h_a is not None:
            model.h_a[-1].weight.mul_(100)
            model.h_a[-1].bias[3] -= 3000
    folder = tmp_path_factory.mktemp("export") / "m"
    codec = export(model, folder, {})
    encoded = codec.encode(kodak_crop()[:77, :120])  # ŷ of 5 x 8, ẑ of 2 x 2
    tensors = safetensors.numpy.load((folder / WEIGHTS).read_bytes())
    return Coded(request.param, tensors, codec, encoded)


class Words:
    """The page's range decoder."""

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


PLAIN = [256 * k for k in range(2**16 + 1)]


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
    W: np.ndarray
    B: np.ndarray
    shift: int
    slope: float

    def __call__(self, sums: np.ndarray) -> np.ndarray:
        """Sums of products, (out, ...) -> outputs in steps of 2^-12."""
        total = (sums + self.B.reshape(-1, *[1] * (sums.ndim - 1))).astype(np.float64)
        total = np.where(total < 0, total * self.slope, total)
        return np.clip(np.rint(total * 2.0**-self.shift), -TOP, TOP).astype(np.int64)


def layer(tensors: dict[str, np.ndarray], name: str, q: int, slope: float, live=1.0) -> Layer:
    w, b = tensors[f"{name}.weight"].astype(np.float64) * live, tensors[f"{name}.bias"].astype(np.float64)
    p = min(15 - math.frexp(np.abs(w).max())[1], 32)
    W, B = (np.rint(array * 2.0**power).astype(np.int64) for array, power in ((w, p), (b, p + q)))
    return Layer(W, B, p + q - 12, slope)


def up(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Transposed convolution, W (in, out, 5, 5)."""
    _, height, width = x.shape
    out = np.zeros((W.shape[1], 2 * height + 4, 2 * width + 4), np.int64)
    for i in range(height):
        for j in range(width):
            out[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5] += np.einsum("n,nokl->okl", x[:, i, j], W)
    return out[:, 2 : 2 * height + 2, 2 : 2 * width + 2]


def convolve(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    reach = W.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, W.shape[-2:], axis=(1, 2))
    return np.einsum("nhwkl,onkl->ohw", windows, W)


def layers_of(variant: Variant, tensors: dict[str, np.ndarray]) -> dict[str, list[Layer]]:
    slope = 0.0 if variant.rung == "scale_hyperprior" else 0.01
    result = {}
    if "h_s.0.weight" in tensors:
        settings = ((0, 0, slope), (2, 12, slope), (4, 12, 1.0))
        result["h_s"] = [layer(tensors, f"h_s.{number}", q, s) for number, q, s in settings]
    if "g_cm.weight" in tensors:
        live = (np.arange(25) < 12).reshape(5, 5)
        result["g_cm"] = [layer(tensors, "g_cm", 0, 1.0, live)]
        result["g_ep"] = [layer(tensors, f"g_ep.{number}", 12, s) for number, s in ((0, 0.01), (2, 0.01), (4, 1.0))]
    return result


def partitions(variant: Variant, tensors: dict[str, np.ndarray], raw: np.ndarray, a: int, b: int) -> list[list[int]]:
    """One per channel from the raw outputs at a position."""
    K, scales = variant.num_components, tensors["tables.latents.scales"]
    num_blocks = 1 + (variant.rung != "scale_hyperprior") + (K > 1)
    blocks = raw.reshape(num_blocks, K, -1)
    resolution = [min(max(next(r for r in range(-9, 12) if 2.0**r >= 16 / s), 1), 7) for s in scales]
    rho = 5.5 if variant.family == "gaussian" else 18.0
    reach = [math.ceil(rho * s * 2**r) for s, r in zip(scales, resolution, strict=True)]
    start = np.cumsum([0, *(2 * h + 1 for h in reach)])
    cumulative = tensors["tables.latents.cumulative"]
    edges = np.arange(a, max(b, a + 1) + 2)
    result = []
    for channel in range(blocks.shape[-1]):
        masses = np.zeros(len(edges) - 1)
        for component in range(K):
            s = int((tensors["tables.latents.thresholds"] < blocks[0, component, channel]).sum())
            r, h = resolution[s], reach[s]
            mean = int(np.rint(blocks[1, component, channel] * 2.0 ** (r - 12))) if num_blocks > 1 else 0
            offsets = np.clip((2 * edges - 1) * 2 ** (r - 1) - mean, -h, h)
            weight = 1.0
            if K > 1:
                gap = blocks[-1, :, channel].max() - blocks[-1, component, channel]
                weight = tensors["tables.latents.exponential"][min(int(np.rint(gap / 64)), 1024)]
            masses += np.diff(cumulative[start[s] + h + offsets]) * weight
        result.append(partition_of((masses + 1).tolist()))
    return result


def read_latents(words: Words, coded: Coded, height: int, width: int, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    """ŷ and ẑ, empty where there is none."""
    variant, tensors, z = coded.variant, coded.tensors, np.zeros((0, 0, 0), int)
    if variant.rung == "factorized":
        return read_tables(words, tensors, height, width), z
    layers = layers_of(variant, tensors)
    features = np.zeros((0, height, width), np.int64)
    if "h_s" in layers:
        z = read_tables(words, tensors, -(-height // 4), -(-width // 4))
        first, second, last = layers["h_s"]
        x = second(up(first(up(np.clip(z, -4096, 4096), first.W)), second.W))
        features = last(convolve(x, last.W))[:, :height, :width]
    has_context = "g_cm" in layers
    y = np.zeros((coded.encoded.y_hat.shape[0], height, width), np.int64)
    positions = [(i, j) for i in range(height) for j in range(width)]
    for i, j in sorted(positions, key=lambda ij: (ij[1] + 3 * ij[0], ij[0])) if has_context else positions:
        raw = features[:, i, j]
        if has_context:
            (g_cm,) = layers["g_cm"]
            around = np.pad(np.clip(y, -4096, 4096), ((0, 0), (2, 2), (2, 2)))[:, i : i + 5, j : j + 5]
            raw = np.concatenate([raw, g_cm(np.einsum("nkl,onkl->o", around, g_cm.W))])
            for one in layers["g_ep"]:
                raw = one(one.W[:, :, 0, 0] @ raw)
        y[:, i, j] = [a + words.symbol(partition) for partition in partitions(variant, tensors, raw, a, b)]
    return y, z


class Reading(NamedTuple):
    values: dict[str, int]
    fingerprint: bytes
    profile: bytes
    payload: bytes


def read_header(data: bytes) -> Reading:
    """By the page's table: its fields in their order."""
    position, values, plain = 0, {}, {}
    for name, size, content in FIELDS:
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
    assert plain["version"] == bytes([1])
    behind = plain["profile"] + plain["payload"]
    everything_else = data[: -len(behind) - 4] + behind
    assert int.from_bytes(plain["checksum"], "little") == zlib.crc32(everything_else)
    return Reading(values, plain["fingerprint"], plain["profile"], plain["payload"])


def test_the_page_is_of_the_version_that_is_written():
    assert f"version {VERSION}\n" in PAGE.splitlines(keepends=True)[0]
    assert [field[0] for field in FIELDS] == [
        "magic", "version", "fingerprint", "width", "height", "smallest latent", "span",
        "profile length", "length", "checksum", "profile", "payload",
    ]  # fmt: skip


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
    y, z = read_latents(words, coded, 5, 8, a, a + values["span"])
    assert np.array_equal(y, coded.encoded.y_hat.numpy())
    assert (y.min(), y.max()) == (a, a + values["span"])
    if coded.encoded.z_hat is not None:
        assert np.array_equal(z, coded.encoded.z_hat.numpy())
    assert not words.words
    if coded.variant.rung != "context":
        table = y if coded.variant.rung == "factorized" else z
        size, lowest = (coded.tensors[f"tables.prior.{name}"] for name in ("sizes", "lowest"))
        assert (table < lowest[:, None, None]).any() or (table >= (lowest + size - 1)[:, None, None]).any(), "no escape"


def test_the_fingerprint_covers_what_the_page_says(coded):
    variant, tensors = coded.variant, coded.tensors
    digest = hashlib.sha256(repr((variant.rung, 8, 12, variant.family, variant.num_components)).encode())

    def add(array: np.ndarray, kind: str = "<f8") -> None:
        digest.update(np.ascontiguousarray(array.astype(kind)).tobytes())

    for number in range(7):
        for name in ("weight", "bias") if number % 2 == 0 else ("beta", "gamma"):
            add(tensors[f"g_s.{number}.{name}"], "<f4")
    if variant.rung != "context":
        add(tensors["tables.prior.lowest"])
        add(tensors["tables.prior.masses"])
    if variant.rung != "factorized":
        for name in ("scales", "thresholds", "cumulative", "exponential"):
            add(tensors[f"tables.latents.{name}"])
    for network, layers in layers_of(variant, tensors).items():
        for one in layers:
            W = one.W
            if network == "g_cm":
                W = W.transpose(2, 3, 1, 0).reshape(25, 12, 24)[:12].reshape(-1, 24)
            elif network == "g_ep":
                W = W[:, :, 0, 0].T
            add(W)
            add(one.B)
            add(np.array([one.shift, one.slope]))
    assert digest.digest()[:8] == coded.codec.fingerprint == read_header(coded.encoded.data).fingerprint


def test_the_header_has_the_sizes_that_the_page_gives():
    smallest = len(pack(Header(b"8 bytes!", 1, 1, 0, 0), b""))
    usual = len(pack(Header(b"8 bytes!", 16383, 16383, -63, 63), bytes(2**21 - 4))) - (2**21 - 4)
    assert f"{smallest} to 37 bytes; {usual} at most" in PAGE
    assert 37 == 4 + 1 + 8 + 5 * 3 + 5 + 4
    assert MAX_PIXELS == 2**27
    assert "accepts 2^27 pixels" in PAGE
