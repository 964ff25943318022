"""The codec's networks as ONNX graphs whose weights are given when a session is made.

    analysis      g_a: image (1, 3, H, W) uint8, sides multiples of 16 -> y (1, M, H / 16, W / 16), before the gains
    hyper         h_a: y (1, M, h, w), scaled -> z (1, N, ceil(h / 4), ceil(w / 4))
    hyper_start   h_s on integers: z_hat (h, w, N) -> start (4 h, 4 w, outputs): what of g_ep waits for no latent, or
                  raw parameters where there is no context
    context       g_cm and g_ep on integers: latents (P, 12 M), and start (P, outputs) if there is a hyperprior -> raw
                  parameters (P, F)
    context_wide  the same for latents in two pieces: low, high (P, 12 M)
    synthesis     g_s: y_hat (1, M, h, w), scaled -> image (1, 3, 16 h, 16 w) uint8

Guarantees: the graphs on integers multiply matrices of integers whose sums stay below 2^24, and round in single
additions only, so any runtime that multiplies float32 gives the codec's bits, provided that it does not fuse an
addition into a product: sessions are made without optimizations. Their tensors are rows of channels, as in `networks`.

A transposed convolution of stride 2 is four convolutions, one for each parity of the output's row and column, which
takes less memory and is faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jahp_pl.codec.entropy.freezing import (
    FRACTION_BITS,
    HYPER_LATENT_CLAMP,
    LARGEST,
    LARGEST_INPUT,
    LATENT_RADIX,
    RAW_CLAMP,
    SMALLEST,
    Float32Array,
    FrozenContext,
    FrozenLayer,
)
from jahp_pl.runtime.onnx_file import FLOAT, UINT8, Graph

TO_END = 2**31
"""Behind the last position of an axis."""
LEAKY = 0.01
"""Slope of LeakyReLUs."""


Weights = dict[str, Float32Array]


class Network(NamedTuple):
    """A graph with its weights."""

    graph: Graph
    weights: Weights


def analysis(state: Mapping[str, Float32Array]) -> Network:
    """g_a of the paper."""
    graph, weights = Graph(), Weights()
    x = graph.op("Cast", graph.input("image", [1, 3, "H", "W"], UINT8), to=FLOAT)
    x = graph.op("Mul", x, graph.constant(np.float32(1 / 255)))
    layers = _layers(state, "g_a")
    for number, position in enumerate(layers):
        name = f"g_a.{position}"
        weight, bias = _parameters(state, name)
        weights |= {name: weight, f"{name}.bias": bias}
        parameters = graph.weight(name, *weight.shape), graph.weight(f"{name}.bias", len(weight))
        x = graph.op("Conv", x, *parameters, strides=(2, 2), pads=(2, 2, 2, 2))
        if number < len(layers) - 1:
            x = _normalize(graph, weights, state, x, f"g_a.{position + 1}", inverse=False)
    graph.output(x, "y", [1, len(weight), "h", "w"])
    return Network(graph, weights)


def hyper(state: Mapping[str, Float32Array], magnitudes: bool) -> Network:
    """h_a.

    Args:
        state: weights by name.
        magnitudes: see `hyperprior.HyperAnalysis`.
    """
    graph, weights = Graph(), Weights()
    x = graph.input("y", [1, state["h_a.0.weight"].shape[1], "h", "w"])
    x = graph.op("Abs", x) if magnitudes else x
    layers = _layers(state, "h_a")
    for number, position in enumerate(layers):
        name = f"h_a.{position}"
        weight, bias = _parameters(state, name)
        weights |= {name: weight, f"{name}.bias": bias}
        parameters = graph.weight(name, *weight.shape), graph.weight(f"{name}.bias", len(weight))
        stride, border = (1, 1) if number == 0 else (2, 2)
        x = graph.op("Conv", x, *parameters, strides=(stride,) * 2, pads=(border,) * 4)
        if number < len(layers) - 1:
            x = _activate(graph, x, 0.0 if magnitudes else LEAKY)
    graph.output(x, "z", [1, len(weight), "hz", "wz"])
    return Network(graph, weights)


def synthesis(state: Mapping[str, Float32Array]) -> Network:
    """g_s of the paper."""
    graph, weights = Graph(), Weights()
    layers = _layers(state, "g_s")
    x = graph.input("y_hat", [1, len(state[f"g_s.{layers[0]}.weight"]), "h", "w"])
    for number, position in enumerate(layers):
        name = f"g_s.{position}"
        is_last = number == len(layers) - 1
        x = _upsample(graph, weights, state, x, name, as_one=is_last)
        if not is_last:
            x = _normalize(graph, weights, state, x, f"g_s.{position + 1}", inverse=True)
    x = graph.op("Mul", graph.op("Clip", x, graph.constant(0.0), graph.constant(1.0)), graph.constant(255.0))
    graph.output(graph.op("Cast", graph.op("Round", x), to=UINT8), "image", [1, 3, "H", "W"], UINT8)
    return Network(graph, weights)


def hyper_start(layers: Sequence[FrozenLayer], from_psi: FrozenLayer | None) -> Network:
    """h_s, and what of g_ep sees it; without a context raw parameters.

    Args:
        layers: of h_s.
        from_psi: see `FrozenContext`.
    """
    graph, weights = Graph(), Weights()
    x = graph.input("z_hat", ["h", "w", layers[0].weight.shape[1]])
    limit = float(HYPER_LATENT_CLAMP)
    x = graph.op("Clip", x, graph.constant(-limit), graph.constant(limit))
    for number, layer in enumerate(layers[:-1]):
        x = _exact_upsample(graph, weights, x, layer, f"h_s.{number}")
    nine = [(row, column, 3 * row + column) for row in range(3) for column in range(3)]
    x = _exact_convolution(graph, weights, _Shifted(graph, x), layers[-1], f"h_s.{len(layers) - 1}", nine)
    if from_psi is not None:
        x = _exact_product(graph, weights, x, from_psi, "g_ep.psi", _bias(graph, weights, from_psi, "g_ep.psi"))
    else:
        x = _to_raw(graph, x)
    graph.output(x, "start", ["4h", "4w", (from_psi or layers[-1]).weight.shape[2]])
    return Network(graph, weights)


def context(frozen: FrozenContext, wide: bool) -> Network:
    """g_cm and g_ep.

    Args:
        frozen: their layers.
        wide: latents come in two pieces, 2^8 high + low.
    """
    graph, weights = Graph(), Weights()
    layer = frozen.context
    num_inputs = layer.weight.shape[1]
    x = _bias(graph, weights, layer, "g_cm")
    for name, unit in (("low", 1), ("high", LATENT_RADIX)) if wide else (("latents", 1),):
        latents = graph.input(name, ["P", num_inputs])
        product = graph.op("MatMul", latents, _tap(graph, weights, layer, "g_cm", 0))
        x = graph.op("Add", x, graph.op("Mul", product, _grid(graph, weights, layer, "g_cm", unit)))
    for number, layer in enumerate(frozen.layers):
        name = f"g_ep.{number}"
        if number == 0 and frozen.from_psi is not None:
            start = graph.input("start", ["P", layer.weight.shape[2]])
        else:
            start = _bias(graph, weights, layer, name)
        x = _exact_product(graph, weights, x, layer, name, start)
    graph.output(_to_raw(graph, x), "raw", ["P", layer.weight.shape[2]])
    return Network(graph, weights)


def _parameters(state: Mapping[str, Float32Array], name: str) -> tuple[Float32Array, Float32Array]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _layers(state: Mapping[str, Float32Array], network: str) -> list[int]:
    """Positions of the convolutions of a network, in their order."""
    names = [name.split(".") for name in state if name.startswith(f"{network}.") and name.endswith(".weight")]
    return sorted(int(position) for _, position, _ in names)


def _normalize(
    graph: Graph, weights: Weights, state: Mapping[str, Float32Array], x: str, name: str, inverse: bool
) -> str:
    """GDN or its inverse, see `layers.GDN`; gamma and beta are the parameters with their reparametrization undone."""
    pedestal = np.float32(2.0**-36)
    for part, bound in (("beta", 1e-6), ("gamma", 0.0)):
        stored = np.maximum(state[f"{name}.{part}"], np.float32((bound + 2.0**-36) ** 0.5))
        weights[f"{name}.{part}"] = np.square(stored) - pedestal
    size = len(weights[f"{name}.beta"])
    weights[f"{name}.gamma"] = weights[f"{name}.gamma"].reshape(size, size, 1, 1)
    parameters = graph.weight(f"{name}.gamma", size, size, 1, 1), graph.weight(f"{name}.beta", size)
    norm = graph.op("Sqrt", graph.op("Conv", graph.op("Mul", x, x), *parameters))
    return graph.op("Mul" if inverse else "Div", x, norm)


PARITIES = [(row, column) for row in range(2) for column in range(2)]
"""Of a position of the output of a transposed convolution of stride 2."""


def _upsample(
    graph: Graph, weights: Weights, state: Mapping[str, Float32Array], x: str, name: str, as_one: bool
) -> str:
    """The 5x5 transposed convolution of stride 2; `as_one` where its outputs are few."""
    weight, bias = _parameters(state, name)
    num_in, num_out = weight.shape[:2]
    # Output o = 2 i - 2 + k: even ones see taps k = 4, 2, 0 of inputs one behind, at and one ahead of o / 2, odd ones
    # taps 3 and 1 of those at and one ahead.
    kernels = {
        (row, column): weight[:, :, (4, 3)[row] :: -2, (4, 3)[column] :: -2].transpose(1, 0, 2, 3)
        for row, column in PARITIES
    }
    if as_one:  # 3x3 kernels for all, with zeros
        whole = np.zeros((num_out, 4, num_in, 3, 3), dtype=np.float32)
        for number, (row, column) in enumerate(PARITIES):
            whole[:, number, :, row:, column:] = kernels[row, column]
        weights[name], weights[f"{name}.bias"] = whole.reshape(-1, num_in, 3, 3), np.repeat(bias, 4)
        parameters = graph.weight(name, 4 * num_out, num_in, 3, 3), graph.weight(f"{name}.bias", 4 * num_out)
        x = graph.op("Conv", x, *parameters, pads=(1, 1, 1, 1))
        return graph.op("DepthToSpace", x, blocksize=2, mode="CRD")
    weights[f"{name}.bias"] = bias
    parts = []
    for row, column in PARITIES:
        part = f"{name}.{row}{column}"
        weights[part] = kernels[row, column]
        parameters = graph.weight(part, *weights[part].shape), graph.weight(f"{name}.bias", num_out)
        parts.append(graph.op("Conv", x, *parameters, pads=(1 - row, 1 - column, 1, 1)))
    return graph.op("DepthToSpace", graph.op("Concat", *parts, axis=1), blocksize=2, mode="DCR")


# --- on integers ------------------------------------------------------------------------------------------------------


def _bias(graph: Graph, weights: Weights, layer: FrozenLayer, name: str) -> str:
    weights[f"{name}.bias"] = layer.bias
    return graph.weight(f"{name}.bias", len(layer.bias))


def _tap(graph: Graph, weights: Weights, layer: FrozenLayer, name: str, tap: int) -> str:
    weights[f"{name}.tap{tap}"] = layer.weight[tap]
    return graph.weight(f"{name}.tap{tap}", *layer.weight.shape[1:])


def _grid(graph: Graph, weights: Weights, layer: FrozenLayer, name: str, unit: int = 1) -> str:
    key = f"{name}.grid" if unit == 1 else f"{name}.grid{unit}"
    weights[key] = layer.grid * np.float32(unit)
    return graph.weight(key, len(layer.grid))


def _activate(graph: Graph, x: str, slope: float) -> str:
    if slope == 1.0:
        return x
    return graph.op("Relu", x) if slope == 0.0 else graph.op("LeakyRelu", x, alpha=slope)


def _to_raw(graph: Graph, x: str) -> str:
    """`networks.to_raw`."""
    x = graph.op("Round", graph.op("Mul", x, graph.constant(2.0**FRACTION_BITS)))
    return graph.op("Clip", x, graph.constant(float(-RAW_CLAMP)), graph.constant(float(RAW_CLAMP)))


def _quantize(graph: Graph, x: str) -> tuple[str, str]:
    """`fixed_point.quantize` of the last dimension: mantissas and steps."""
    axis = graph.constant([-1], np.int64)
    largest = graph.op("ReduceMax", graph.op("Abs", x), axis)
    powers = 2.0 ** np.arange(round(np.log2(SMALLEST)), round(np.log2(LARGEST)) + 1)
    reached = graph.op("GreaterOrEqual", largest, graph.constant(powers[1:]))
    number = graph.op("ReduceSum", graph.op("Cast", reached, to=FLOAT), axis)
    index = graph.op("Cast", number, to=7)
    steps = graph.op("Gather", graph.constant(powers * (2.0 / LARGEST_INPUT)), index)
    mantissas = graph.op("Round", graph.op("Div", x, steps))
    limit = float(LARGEST_INPUT)
    return graph.op("Clip", mantissas, graph.constant(-limit), graph.constant(limit)), steps


def _exact_product(graph: Graph, weights: Weights, x: str, layer: FrozenLayer, name: str, start: str) -> str:
    """A linear layer on top of `start`."""
    mantissas, steps = _quantize(graph, x)
    return _activate(graph, _exact_add(graph, weights, start, mantissas, steps, layer, name, 0), layer.slope)


def _exact_add(
    graph: Graph,
    weights: Weights,
    u: str,
    mantissas: str,
    steps: str,
    layer: FrozenLayer,
    name: str,
    tap: int,
) -> str:
    """u + P q gamma, see docs/file-format.md."""
    product = graph.op("MatMul", mantissas, _tap(graph, weights, layer, name, tap))
    product = graph.op("Mul", product, steps)
    return graph.op("Add", u, graph.op("Mul", product, _grid(graph, weights, layer, name)))


class _Shifted:
    """x in integers, moved by an offset (row, column) from 0 to 2, 1 being no shift; outside x are zeros.

    A shift is made where it is first used, so that a runtime need not hold all of them.
    """

    def __init__(self, graph: Graph, x: str) -> None:
        self._graph = graph
        border = graph.constant([1, 1, 0, 1, 1, 0], np.int64)
        self._padded = [graph.op("Pad", part, border, graph.constant(0.0)) for part in _quantize(graph, x)]
        self._axes = graph.constant([0, 1], np.int64)
        self._made: dict[tuple[int, int], tuple[str, str]] = {}

    def at(self, row: int, column: int) -> tuple[str, str]:
        """Mantissas and steps."""
        if (row, column) not in self._made:
            graph = self._graph
            starts = graph.constant([row, column], np.int64)
            ends = graph.constant([row - 2 or TO_END, column - 2 or TO_END], np.int64)
            mantissas, steps = (graph.op("Slice", part, starts, ends, self._axes) for part in self._padded)
            self._made[row, column] = mantissas, steps
        return self._made[row, column]


def _exact_convolution(
    graph: Graph,
    weights: Weights,
    shifted: _Shifted,
    layer: FrozenLayer,
    name: str,
    taps: Sequence[tuple[int, int, int]],
) -> str:
    """A convolution, tap by tap: its offset (row, column) and its number."""
    x = _bias(graph, weights, layer, name)
    for row, column, tap in taps:
        x = _exact_add(graph, weights, x, *shifted.at(row, column), layer, name, tap)
    return _activate(graph, x, layer.slope)


def _exact_upsample(graph: Graph, weights: Weights, x: str, layer: FrozenLayer, name: str) -> str:
    """The 5x5 transposed convolution of stride 2: (h, w, in) -> (2 h, 2 w, out). Taps as in `_upsample`, in order."""
    reach = [[(2, 0), (1, 2), (0, 4)], [(2, 1), (1, 3)]]
    shifted = _Shifted(graph, x)
    rows = []
    for row in reach:
        parts = []
        for column in reach:
            taps = [(r[0], c[0], 5 * r[1] + c[1]) for r in row for c in column]
            part = _exact_convolution(graph, weights, shifted, layer, name, taps)
            parts.append(graph.op("Unsqueeze", part, graph.constant([2], np.int64)))
        both = graph.op("Concat", *parts, axis=2)  # (h, w, 2, out)
        rows.append(graph.op("Unsqueeze", both, graph.constant([1], np.int64)))
    stacked = graph.op("Concat", *rows, axis=1)  # (h, 2, w, 2, out)
    width = graph.op("Mul", graph.op("Shape", stacked, start=2, end=3), graph.constant([2], np.int64))
    ends = [graph.constant([size], np.int64) for size in (-1, layer.weight.shape[2])]
    return graph.op("Reshape", stacked, graph.op("Concat", ends[0], width, ends[1], axis=0))
