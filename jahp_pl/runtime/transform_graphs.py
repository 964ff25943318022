"""Builds the paper's g_a, h_a and g_s as ONNX graphs.

    analysis         g_a: image (1, 3, H, W) uint8, sides multiples of 16 -> y (1, M, H / 16, W / 16), before the gains
    hyper_analysis   h_a: y (1, M, h, w), after the gains -> z (1, N, ceil(h / 4), ceil(w / 4))
    synthesis        g_s: y_hat (1, M, h, w), after the inverse gains; starts and ends (3, 2), see `halo_cuts` -> image
                     (1, 3, H, W) uint8

A transposed convolution of stride 2 is built as four convolutions, one for each parity of the output's row and column,
which takes less memory and time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.arrays import Float32Array
from jahp_pl.codec.transforms.tiles import TileSpan
from jahp_pl.runtime.integer_networks import LEAKY_SLOPE
from jahp_pl.runtime.onnx_file import FLOAT, INT64, TO_END, UINT8, GraphBuilder

State = Mapping[str, Float32Array]
"""Weights of a model by name, as in a state_dict."""
PARITIES = [(row, column) for row in range(2) for column in range(2)]
"""Parities of the row and column of an output of a transposed convolution of stride 2."""
LAYER_HALOS = (2, 2, 1)
"""Positions around a tile on which its pixels depend, after each layer of g_s but the last. A transposed 5x5
convolution of stride 2 computes r positions around a tile from (r + 3) // 2 around its input."""


class HaloCuts(NamedTuple):
    """The borders that g_s cuts off a tile after each layer but the last: the tile's pixels do not depend on them."""

    starts: npt.NDArray[np.int64]
    """(3, 2): first row and first column to keep, after each layer."""
    ends: npt.NDArray[np.int64]
    """(3, 2): end of the rows and of the columns to keep, as in slices: a negative number counts from the end."""
    kept: tuple[int, int]
    """First row and first column of the tile in the result."""


def halo_cuts(rows: TileSpan, columns: TileSpan) -> HaloCuts:
    """Compute the cuts for one tile of latents, given its spans along both axes.

    Without them, half of a small tile would be halo at the resolutions that take nearly all of the time.
    """
    spans = (rows, columns)
    starts, first = _cuts([span.start - span.low for span in spans])
    ends, _ = _cuts([span.high - span.stop for span in spans])
    return HaloCuts(starts, np.where(ends == 0, TO_END, -ends), (2 * first[0], 2 * first[1]))


def _cuts(halo: list[int]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Return the positions to cut off (3, 2) on one side of both axes, and the halo that is left after the last cut."""
    cuts = []
    for needed in LAYER_HALOS:
        left = [min(2 * size, needed) for size in halo]
        cuts.append([2 * size - kept for size, kept in zip(halo, left, strict=True)])
        halo = left
    return np.array(cuts, dtype=np.int64), halo


def analysis(state: State) -> GraphBuilder:
    """Build the graph of g_a; shapes as in the module's docstring."""
    graph = GraphBuilder()
    x = graph.op("Cast", graph.input("image", [1, 3, "H", "W"], UINT8), to=FLOAT)
    x = graph.op("Mul", x, graph.constant(np.float32(1 / 255)))
    layers = _convolutions(state, "g_a")
    for number, position in enumerate(layers):
        x = _convolution(graph, state, x, f"g_a.{position}", stride=2, border=2)
        if number < len(layers) - 1:
            x = _normalize(graph, state, x, f"g_a.{position + 1}", inverse=False)
    graph.output(x, "y", [1, len(state[f"g_a.{layers[-1]}.bias"]), "h", "w"])
    return graph


def hyper_analysis(state: State, magnitudes: bool) -> GraphBuilder:
    """Build the graph of h_a; shapes as in the module's docstring.

    Args:
        state: weights of the model.
        magnitudes: see `hyperprior.HyperAnalysis`.
    """
    graph = GraphBuilder()
    x = graph.input("y", [1, state["h_a.0.weight"].shape[1], "h", "w"])
    x = graph.op("Abs", x) if magnitudes else x
    layers = _convolutions(state, "h_a")
    for number, position in enumerate(layers):
        stride, border = (1, 1) if number == 0 else (2, 2)
        x = _convolution(graph, state, x, f"h_a.{position}", stride, border)
        if number < len(layers) - 1:
            x = graph.leaky_relu(x, 0.0 if magnitudes else LEAKY_SLOPE)
    graph.output(x, "z", [1, len(state[f"h_a.{layers[-1]}.bias"]), "hz", "wz"])
    return graph


def synthesis(state: State) -> GraphBuilder:
    """Build the graph of g_s, with clipped and rounded samples; shapes as in the module's docstring."""
    graph = GraphBuilder()
    layers = _convolutions(state, "g_s")
    x = graph.input("y_hat", [1, len(state[f"g_s.{layers[0]}.weight"]), "h", "w"])
    cuts = [graph.input(name, [len(LAYER_HALOS), 2], INT64) for name in ("starts", "ends")]
    axes = graph.constant([2, 3], np.int64)
    for number, position in enumerate(layers[:-1]):
        x = _upsample(graph, state, x, f"g_s.{position}")
        row = graph.constant(number, np.int64)
        x = graph.op("Slice", x, *(graph.op("Gather", cut, row) for cut in cuts), axes)
        x = _normalize(graph, state, x, f"g_s.{position + 1}", inverse=True)
    x = _upsample_to_few(graph, state, x, f"g_s.{layers[-1]}")
    x = graph.op("Mul", graph.op("Clip", x, graph.constant(0.0), graph.constant(1.0)), graph.constant(255.0))
    graph.output(graph.op("Cast", graph.op("Round", x), to=UINT8), "image", [1, 3, "H", "W"], UINT8)
    return graph


def _convolutions(state: State, network: str) -> list[int]:
    """Return the positions of a network's convolutions in order."""
    names = [name.split(".") for name in state if name.startswith(f"{network}.") and name.endswith(".weight")]
    return sorted(int(position) for _, position, _ in names)


def _convolution(graph: GraphBuilder, state: State, x: str, name: str, stride: int, border: int) -> str:
    kernel, bias = graph.weight(name, state[f"{name}.weight"]), graph.weight(f"{name}.bias", state[f"{name}.bias"])
    return graph.op("Conv", x, kernel, bias, strides=(stride,) * 2, pads=(border,) * 4)


def _normalize(graph: GraphBuilder, state: State, x: str, name: str, inverse: bool) -> str:
    """Add a GDN or its inverse, see `layers.GDN`, with beta and gamma computed from their stored reparametrization."""
    pedestal = np.float32(2.0**-36)
    values = {}
    for part, bound in (("beta", 1e-6), ("gamma", 0.0)):
        stored = np.maximum(state[f"{name}.{part}"], np.float32((bound + 2.0**-36) ** 0.5))
        with np.errstate(over="ignore"):  # infinite for absurd weights, as in torch
            values[part] = np.square(stored) - pedestal
    size = len(values["beta"])
    gamma = graph.weight(f"{name}.gamma", values["gamma"].reshape(size, size, 1, 1))
    beta = graph.weight(f"{name}.beta", values["beta"])
    norm = graph.op("Sqrt", graph.op("Conv", graph.op("Mul", x, x), gamma, beta))
    return graph.op("Mul" if inverse else "Div", x, norm)


def _parity_kernels(weight: Float32Array) -> dict[tuple[int, int], Float32Array]:
    """Split the kernel (in, out, 5, 5) of a transposed convolution of stride 2 by `PARITIES`, as (out, in, ., .).

    Tap k of input i contributes to output o = 2 i - 2 + k: even outputs see taps 4, 2 and 0 of inputs o / 2 - 1, o / 2
    and o / 2 + 1, odd ones see taps 3 and 1 of inputs (o - 1) / 2 and (o + 1) / 2.
    """
    return {
        (row, column): weight[:, :, (4, 3)[row] :: -2, (4, 3)[column] :: -2].transpose(1, 0, 2, 3)
        for row, column in PARITIES
    }


def _upsample(graph: GraphBuilder, state: State, x: str, name: str) -> str:
    """Add the 5x5 transposed convolution of stride 2, with a convolution for each parity."""
    bias = state[f"{name}.bias"]
    parts = []
    for (row, column), kernel in _parity_kernels(state[f"{name}.weight"]).items():
        weights = graph.weight(f"{name}.{row}{column}", kernel), graph.weight(f"{name}.bias", bias)
        parts.append(graph.op("Conv", x, *weights, pads=(1 - row, 1 - column, 1, 1)))
    return graph.op("DepthToSpace", graph.op("Concat", *parts, axis=1), blocksize=2, mode="DCR")


def _upsample_to_few(graph: GraphBuilder, state: State, x: str, name: str) -> str:
    """Add the same layer as one convolution for all parities, with zeros in its 3x3 kernels: faster for few outputs."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    num_in, num_out = weight.shape[:2]
    kernels = np.zeros((num_out, len(PARITIES), num_in, 3, 3), dtype=np.float32)
    for number, ((row, column), kernel) in enumerate(_parity_kernels(weight).items()):
        kernels[:, number, :, row:, column:] = kernel
    weights = graph.weight(name, kernels.reshape(-1, num_in, 3, 3)), graph.weight(f"{name}.bias", np.repeat(bias, 4))
    x = graph.op("Conv", x, *weights, pads=(1, 1, 1, 1))
    return graph.op("DepthToSpace", x, blocksize=2, mode="CRD")
