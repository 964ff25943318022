"""Builds h_s, g_cm and g_ep on integers as ONNX graphs.

    hyper_synthesis  h_s: z_hat (h, w, N) -> from_psi (4 h, 4 w, outputs), the part of g_ep's first layer that depends
                     on psi, bias included; without a context model, raw parameters
    context          g_cm and g_ep: latents (P, 12 M), and from_psi (P, outputs) if there is a hyperprior -> raw
                     parameters (P, F) of P positions
    context_wide     the same for larger latents, which come in two pieces: low and high (P, 12 M), y = 2^8 high + low

Guarantees: the graphs multiply matrices of integers whose sums stay below 2^24 and round only in single additions, so
every runtime that multiplies float32 computes the codec's bits, provided that it does not fuse an addition into a
product. Sessions are therefore created without optimizations. The counterpart in torch is `codec.entropy.networks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jahp_pl.codec.entropy.integer_layers import (
    CONVOLUTION_TAPS,
    FRACTION_BITS,
    HYPER_LATENT_CLAMP,
    LARGEST_INPUT,
    LATENT_RADIX,
    RAW_CLAMP,
    ROW_MAX,
    ROW_MIN,
    UPSAMPLING_TAPS,
    IntegerContext,
    IntegerLayer,
    Tap,
)
from jahp_pl.runtime.onnx_file import FLOAT, INT64, TO_END, GraphBuilder


def hyper_synthesis(layers: Sequence[IntegerLayer], from_psi: IntegerLayer | None) -> GraphBuilder:
    """Build the graph of h_s and of the part of g_ep's first layer that depends on psi.

    Args:
        layers: layers of h_s.
        from_psi: that part of g_ep, see `IntegerContext`; None without a context model.
    """
    graph = GraphBuilder()
    x = graph.input("z_hat", ["h", "w", layers[0].weight.shape[1]])
    limit = float(HYPER_LATENT_CLAMP)
    x = graph.op("Clip", x, graph.constant(-limit), graph.constant(limit))
    for number, layer in enumerate(layers[:-1]):
        x = _ExactLayer(graph, layer, f"h_s.{number}").upsample(x)
    last = _ExactLayer(graph, layers[-1], f"h_s.{len(layers) - 1}")
    x = last.convolve(_Shifted(graph, x), CONVOLUTION_TAPS)
    if from_psi is not None:
        linear = _ExactLayer(graph, from_psi, "g_ep.psi")
        x = linear.multiply(x, linear.bias())
    else:
        x = _to_raw(graph, x)
    graph.output(x, "from_psi", ["4h", "4w", (from_psi or layers[-1]).weight.shape[2]])
    return graph


def context(networks: IntegerContext, is_wide: bool) -> GraphBuilder:
    """Build the graph of g_cm and g_ep; shapes as in the module's docstring.

    Args:
        networks: both in integers.
        is_wide: whether latents come in two pieces, see the module's docstring.
    """
    graph = GraphBuilder()
    g_cm = _ExactLayer(graph, networks.context, "g_cm")
    x = g_cm.bias()
    for name, unit in (("low", 1), ("high", LATENT_RADIX)) if is_wide else (("latents", 1),):
        latents = graph.input(name, ["P", networks.context.weight.shape[1]])
        product = graph.op("MatMul", latents, g_cm.tap(0))
        x = graph.op("Add", x, graph.op("Mul", product, g_cm.grid(unit)))
    for number, layer in enumerate(networks.layers):
        linear = _ExactLayer(graph, layer, f"g_ep.{number}")
        if number == 0 and networks.from_psi is not None:
            start = graph.input("from_psi", ["P", layer.weight.shape[2]])
        else:
            start = linear.bias()
        x = linear.multiply(x, start)
    graph.output(_to_raw(graph, x), "raw", ["P", networks.layers[-1].weight.shape[2]])
    return graph


class _Rows(NamedTuple):
    """Names of two tensors: rows of integers, and the value of one integer step in each row; see `fixed_point`."""

    mantissas: str
    steps: str


class _ExactLayer:
    """An integer layer in a graph; the names of its weights begin with `name`. Methods return names of tensors."""

    def __init__(self, graph: GraphBuilder, layer: IntegerLayer, name: str) -> None:
        self._graph, self._layer, self._name = graph, layer, name

    def bias(self) -> str:
        """Add the bias, (out,)."""
        return self._graph.weight(f"{self._name}.bias", self._layer.bias)

    def tap(self, tap: int) -> str:
        """Add the weights of a tap, (in, out) integers."""
        return self._graph.weight(f"{self._name}.tap{tap}", self._layer.weight[tap])

    def grid(self, unit: int = 1) -> str:
        """Add the values of one integer step of a product, (out,), for inputs counted in multiples of `unit`."""
        name = f"{self._name}.grid" if unit == 1 else f"{self._name}.grid{unit}"
        return self._graph.weight(name, self._layer.grid * np.float32(unit))

    def multiply(self, x: str, start: str) -> str:
        """Apply the layer as a linear layer, with `start` in place of the bias."""
        sums = self._add(start, _quantize(self._graph, x), 0)
        return self._graph.leaky_relu(sums, self._layer.slope)

    def convolve(self, shifted: _Shifted, taps: Sequence[Tap]) -> str:
        """Apply the layer as a convolution with these taps, whose products are added in this order."""
        sums = self.bias()
        for row, column, number in taps:
            sums = self._add(sums, shifted.at(row, column), number)
        return self._graph.leaky_relu(sums, self._layer.slope)

    def upsample(self, x: str) -> str:
        """Apply the layer as a 5x5 transposed convolution of stride 2, by `UPSAMPLING_TAPS`: (h, w, in) -> (2 h, 2 w,
        out)."""
        graph = self._graph
        shifted = _Shifted(graph, x)
        by_row = []
        for of_row in UPSAMPLING_TAPS:
            by_column = []
            for taps in of_row:
                by_column.append(graph.op("Unsqueeze", self.convolve(shifted, taps), graph.constant([2], np.int64)))
            both = graph.op("Concat", *by_column, axis=2)  # (h, w, 2, out)
            by_row.append(graph.op("Unsqueeze", both, graph.constant([1], np.int64)))
        stacked = graph.op("Concat", *by_row, axis=1)  # (h, 2, w, 2, out)
        width = graph.op("Mul", graph.op("Shape", stacked, start=2, end=3), graph.constant([2], np.int64))
        height, outputs = (graph.constant([size], np.int64) for size in (-1, self._layer.weight.shape[2]))
        return graph.op("Reshape", stacked, graph.op("Concat", height, width, outputs, axis=0))

    def _add(self, sums: str, rows: _Rows, tap: int) -> str:
        """Add the product of one tap to the sums: u + P q gamma, see docs/file-format.md."""
        product = self._graph.op("MatMul", rows.mantissas, self.tap(tap))
        product = self._graph.op("Mul", product, rows.steps)
        return self._graph.op("Add", sums, self._graph.op("Mul", product, self.grid()))


class _Shifted:
    """The quantized x (h, w, in), shifted by offsets (row, column) as in `Tap`, with zeros outside x.

    Each shift is added to the graph where it is first used, so that a runtime need not hold all of them at once.
    """

    def __init__(self, graph: GraphBuilder, x: str) -> None:
        self._graph = graph
        border = graph.constant([1, 1, 0, 1, 1, 0], np.int64)
        self._padded = [graph.op("Pad", part, border, graph.constant(0.0)) for part in _quantize(graph, x)]
        self._axes = graph.constant([0, 1], np.int64)
        self._made: dict[tuple[int, int], _Rows] = {}

    def at(self, row: int, column: int) -> _Rows:
        """Return x shifted by one offset."""
        if (row, column) not in self._made:
            graph = self._graph
            starts = graph.constant([row, column], np.int64)
            ends = graph.constant([row - 2 or TO_END, column - 2 or TO_END], np.int64)
            self._made[row, column] = _Rows(
                *(graph.op("Slice", part, starts, ends, self._axes) for part in self._padded)
            )
        return self._made[row, column]


def _to_raw(graph: GraphBuilder, x: str) -> str:
    """Round to raw parameters like `codec.entropy.networks.to_raw`."""
    x = graph.op("Round", graph.op("Mul", x, graph.constant(2.0**FRACTION_BITS)))
    return graph.op("Clip", x, graph.constant(float(-RAW_CLAMP)), graph.constant(float(RAW_CLAMP)))


def _quantize(graph: GraphBuilder, x: str) -> _Rows:
    """Quantize the last dimension like `fixed_point.quantize`."""
    axis = graph.constant([-1], np.int64)
    largest = graph.op("ReduceMax", graph.op("Abs", x), axis)
    powers = 2.0 ** np.arange(round(np.log2(ROW_MIN)), round(np.log2(ROW_MAX)) + 1)
    reached = graph.op("GreaterOrEqual", largest, graph.constant(powers[1:]))
    number = graph.op("ReduceSum", graph.op("Cast", reached, to=FLOAT), axis)
    index = graph.op("Cast", number, to=INT64)
    steps = graph.op("Gather", graph.constant(powers * (2.0 / LARGEST_INPUT)), index)
    mantissas = graph.op("Round", graph.op("Div", x, steps))
    limit = float(LARGEST_INPUT)
    return _Rows(graph.op("Clip", mantissas, graph.constant(-limit), graph.constant(limit)), steps)
