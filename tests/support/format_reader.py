"""A reader of compressed files that is written from docs/file-format.md: it uses plain integers and single float32
additions, and shares no code with the codec.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import NamedTuple

import numpy as np

from tests.support import ROOT
from tests.support.codec_models import Variant
from tests.support.format_networks import convolve, layers_of, outputs_at

PAGE = (ROOT / "docs" / "file-format.md").read_text()
FIELDS = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", PAGE, re.MULTILINE)[2:]]
TOP = 2**24


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


def read_latents(
    words: Words,
    variant: Variant,
    tensors: dict[str, np.ndarray],
    size: tuple[int, int, int],
    smallest: int,
    span: int,
) -> Latents:
    """Read the latents y of this size, (M, height, width), between the bounds of the header, and z before them."""
    (num_latents, height, width), z = size, np.zeros((0, 0, 0), int)
    if variant.entropy_model == "factorized":
        return Latents(read_tables(words, tensors, height, width), z, 0)
    layers, features, escapes = layers_of(variant, tensors), None, 0
    if "h_s.0" in layers:
        z = read_tables(words, tensors, -(-height // 4), -(-width // 4))
        features = np.clip(z, -TOP, TOP).astype(np.float32).transpose(1, 2, 0)
        for name, transposed in (("h_s.0", True), ("h_s.2", True), ("h_s.4", False)):
            features = convolve(features, layers[name], transposed)
    y = np.zeros((height, width, num_latents), int)
    positions = [(i, j) for i in range(height) for j in range(width)]
    if "g_cm" in layers:
        times = sorted({j + 3 * i for i, j in positions})
        steps = [[(i, j) for i, j in positions if j + 3 * i == t] for t in times]
    else:
        steps = [positions[k : k + 1024] for k in range(0, len(positions), 1024)]
    for step in steps:
        found: dict[tuple[int, int, int], Window] = {}
        for i, j in step:
            if "g_cm" in layers:
                outputs = outputs_at(layers, features, y, i, j)
            else:
                assert features is not None
                outputs = features[i, j]
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
                y[place] = smallest + (words.symbol(equal_chances(span + 1)) if span else 0)
            escapes += len(escaped)
    return Latents(y.transpose(2, 0, 1), z, escapes)


class Reading(NamedTuple):
    values: dict[str, int]
    fingerprint: bytes
    profile: bytes
    payload: bytes


def read_header(data: bytes) -> Reading:
    """Read the fields in the order of the page's table."""
    values: dict[str, int] = {}
    plain: dict[str, bytes] = {}
    position = 0
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
