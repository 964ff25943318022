"""The networks of `format_reader`, written from docs/file-format.md, section "Networks": they use plain integers and
single float32 additions, and share no code with the codec.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tests.support.codec_models import Variant


class Layer(NamedTuple):
    """Integer layer, in the page's notation."""

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
        total: np.ndarray = u + term.astype(np.float32)
        return total

    def activate(self, u: np.ndarray) -> np.ndarray:
        return u if self.slope == 1 else np.where(u > 0, u, u * np.float32(self.slope))


def converted(w: np.ndarray, b: np.ndarray, slope: float, A: int = 2**10) -> Layer:
    """Convert weights w (taps, inputs, outputs) and biases b (outputs,) to integers."""
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
            result[f"h_s.{number}"] = converted(taps, tensors[f"h_s.{number}.bias"], slope)
    if "g_cm.weight" in tensors:
        live = tensors["g_cm.weight"].transpose(2, 1, 0)  # by tap
        assert len(live) == 12
        result["g_cm"] = converted(live.reshape(1, -1, live.shape[-1]), tensors["g_cm.bias"], 1.0, 2**7)
        split = tensors["g_ep.0.weight"].shape[1] - live.shape[-1]
        first, bias = by_tap(tensors["g_ep.0.weight"], transposed=False), tensors["g_ep.0.bias"]
        result["g_ep.0"] = converted(first[:, split:], np.zeros_like(bias) if split else bias, 0.01)
        for number, slope in ((2, 0.01), (4, 1.0)):
            taps = by_tap(tensors[f"g_ep.{number}.weight"], transposed=False)
            result[f"g_ep.{number}"] = converted(taps, tensors[f"g_ep.{number}.bias"], slope)
        if split:
            result["g_ep.0 of h_s"] = converted(first[:, :split], bias, 1.0)
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
