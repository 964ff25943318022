"""g_cm and g_ep at the few positions of a decoding step on a CPU, with the results of `ExactContextNetwork.raw`.

A step has about ten positions. With so few, calling an operation between the matrix products takes several times as
long as its arithmetic. This module therefore calls fewer operations: in place, in reused memory, and in numpy, whose
calls are the cheapest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jahp_pl.codec.arrays import Float32Array, IndexArray
from jahp_pl.codec.entropy.fixed_point import ANCHOR, EXPONENT_FIELD, FixedPointLayer
from jahp_pl.codec.entropy.freezing import FRACTION_BITS, LARGEST, RAW_CLAMP, SMALLEST
from jahp_pl.codec.entropy.networks import ExactContextNetwork
from jahp_pl.codec.packed_weights import multiply

FEW_ROWS = 64
"""Maximum number of rows for which calling an operation takes longer than its arithmetic."""

_SMALLEST, _LARGEST, _LIMIT = (np.float32(value) for value in (SMALLEST, LARGEST, 2 * LARGEST))
_ANCHOR, _EXPONENT_FIELD = np.float32(ANCHOR), np.int32(EXPONENT_FIELD)
_RAW_STEPS, _RAW_LIMIT = np.float32(2.0**FRACTION_BITS), np.float32(RAW_CLAMP)


class _Layer(NamedTuple):
    """A layer and its memory for some number of rows."""

    weight: Tensor
    """(in, out)."""
    packed: Tensor | None
    """See `FixedPointLayer`."""
    bias: Float32Array
    slope: np.float32
    out: Float32Array
    """(rows, out)."""
    out_rows: Tensor
    """`out` as a tensor."""
    scratch: Float32Array
    """(rows, out)."""

    def add(self, start: Float32Array, rows: Tensor) -> None:
        """Compute out = start + rows @ weight; see `FixedPointLayer.add`."""
        np.add(multiply(rows, self.weight, self.packed).numpy(), start, out=self.out)

    def activate(self) -> None:
        """Apply the nonlinearity, whose slope is at most 1, to `out`."""
        if self.slope != 1:
            np.multiply(self.out, self.slope, out=self.scratch)
            np.maximum(self.out, self.scratch, out=self.out)

    def quantize(self) -> Tensor:
        """Round `out` like `fixed_point.quantize`, and return it as a tensor."""
        np.abs(self.out, out=self.scratch)
        anchor = self.scratch.max(axis=1, keepdims=True)
        np.maximum(anchor, _SMALLEST, out=anchor)
        np.minimum(anchor, _LARGEST, out=anchor)
        bits = anchor.view(np.int32)
        np.bitwise_and(bits, _EXPONENT_FIELD, out=bits)
        np.multiply(anchor, _ANCHOR, out=anchor)
        np.add(self.out, anchor, out=self.out)
        np.subtract(self.out, anchor, out=self.out)
        np.maximum(self.out, -_LIMIT, out=self.out)
        np.minimum(self.out, _LIMIT, out=self.out)
        return self.out_rows


class _Step(NamedTuple):
    """Memory for steps of some number of positions."""

    context: list[Float32Array]
    """(positions, 12, M) for each piece of the latents."""
    context_rows: list[Tensor]
    """The same as (positions, 12 M)."""
    layers: list[_Layer]
    """g_cm and the layers of g_ep."""


class StepNetwork:
    """`ExactContextNetwork.raw` at up to `FEW_ROWS` positions. Not thread-safe.

    Args:
        network: network on a CPU.
        y: (pieces, positions + 1, M) latents in coding order, to which the caller adds between calls.
    """

    def __init__(self, network: ExactContextNetwork, y: Float32Array) -> None:
        self._frozen = [network.context, *network.layers]
        self._y = y
        self._memory = _Memory()
        self._steps: dict[int, _Step] = {}

    def raw(self, taps: IndexArray, start: Float32Array | None) -> Float32Array:
        """Compute the raw entropy parameters at P positions.

        Args:
            taps: (P, 12) rows of y that form the context of each position.
            start: see `ExactContextNetwork.raw`.

        Returns:
            (P, outputs) integers, valid until the next call.
        """
        step = self._steps.get(len(taps)) or self._prepare(*taps.shape)
        first, *others = step.layers
        sums = first.bias
        for y, context, rows in zip(self._y, step.context, step.context_rows, strict=True):
            y.take(taps, axis=0, out=context, mode="clip")  # other modes make a copy
            first.add(sums, rows)
            sums = first.out
        before = first
        for layer in others:
            layer.add(layer.bias if start is None else start, before.quantize())
            layer.activate()
            before, start = layer, None
        raw = before.out
        np.multiply(raw, _RAW_STEPS, out=raw)
        np.rint(raw, out=raw)
        np.maximum(raw, -_RAW_LIMIT, out=raw)
        return np.minimum(raw, _RAW_LIMIT, out=raw)

    def _prepare(self, num_rows: int, num_taps: int) -> _Step:
        """Arrange the memory for a number of positions."""
        shape = num_rows, num_taps, self._y.shape[2]
        context = [self._memory.array(f"context {piece}", shape) for piece in range(len(self._y))]
        layers = [self._layer(f"layer {number}", layer, num_rows) for number, layer in enumerate(self._frozen)]
        step = _Step(context, [torch.from_numpy(part).flatten(1) for part in context], layers)
        self._steps[num_rows] = step
        return step

    def _layer(self, name: str, layer: FixedPointLayer, num_rows: int) -> _Layer:
        num_out = len(layer.bias)
        out, scratch = (self._memory.array(f"{name}, {part}", (num_rows, num_out)) for part in ("out", "scratch"))
        slope = np.float32(layer.slope)
        return _Layer(
            layer.weight[0], layer.packed[0], layer.bias.numpy(), slope, out, torch.from_numpy(out), scratch
        )  # fmt: skip


class _Memory:
    """Named float32 memory for up to `FEW_ROWS` rows, shared by steps of all sizes."""

    def __init__(self) -> None:
        self._buffers: dict[str, Float32Array] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> Float32Array:
        """Return the memory of that name as an array of the given shape, whose first dimension is rows."""
        if name not in self._buffers:
            self._buffers[name] = np.empty(FEW_ROWS * math.prod(shape[1:]), dtype=np.float32)
        return self._buffers[name][: math.prod(shape)].reshape(shape)
