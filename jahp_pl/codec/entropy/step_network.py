"""Runs g_cm and g_ep on a CPU at the few positions of a decoding step, with the results of `ExactContextNetwork.raw`.

A step has about ten positions. With so few, calling an operation between the matrix products takes several times as
long as its arithmetic. This module therefore calls fewer operations: in place, in reused memory, and in numpy, whose
calls are the cheapest.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.arrays import Float32Array, IndexArray
from jahp_pl.codec.entropy.byte_product import ByteProduct, padded_rows
from jahp_pl.codec.entropy.fixed_point import ANCHOR, EXPONENT_FIELD, FixedPointLayer
from jahp_pl.codec.entropy.integer_layers import FRACTION_BITS, RAW_CLAMP, ROW_MAX, ROW_MIN
from jahp_pl.codec.entropy.networks import ExactContextNetwork
from jahp_pl.codec.packed_weights import multiply

FEW_ROWS = 256
"""Maximum number of rows for which calling an operation takes longer than its arithmetic."""

_ROW_MIN, _ROW_MAX, _LIMIT = np.float32(ROW_MIN), np.float32(ROW_MAX), 2 * ROW_MAX
_ANCHOR, _EXPONENT_FIELD = np.float32(ANCHOR), np.int32(EXPONENT_FIELD)
_RAW_STEPS = np.float32(2.0**FRACTION_BITS)

LatentArray = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
"""Latents as they enter g_cm: as numbers, or as bytes for `ByteProduct`."""


class _Layer(NamedTuple):
    """A layer and its memory for some number of rows."""

    weight: Tensor
    """Weights, (in, out)."""
    packed: Tensor | None
    """See `FixedPointLayer`."""
    bias: Float32Array
    slope: float
    out: Float32Array
    """Outputs, (rows, out)."""
    out_rows: Tensor
    """`out` as a tensor."""
    scratch: Float32Array
    """Intermediate values, (rows, out)."""
    scratch_rows: Tensor
    """`scratch` as a tensor."""
    anchor: Float32Array
    """(rows, 1), see `fixed_point.ANCHOR`."""
    anchor_rows: Tensor
    """`anchor` as a tensor."""

    def add(self, start: Float32Array, rows: Tensor) -> None:
        """Compute out = start + rows @ weight; see `FixedPointLayer.add`."""
        if self.packed is None:
            torch.mm(rows, self.weight, out=self.scratch_rows)  # `start` may be `out`
            np.add(self.scratch, start, out=self.out)
        else:
            np.add(multiply(rows, self.weight, self.packed).numpy(), start, out=self.out)

    def add_bytes(self, start: Float32Array, rows: Tensor, product: ByteProduct) -> None:
        """Compute the same from rows of bytes."""
        low, high = (half.numpy()[: len(self.out)] for half in product.halves(rows))
        np.add(low, high, out=self.scratch)
        np.add(self.scratch, start, out=self.out)

    def activate(self) -> None:
        """Apply the nonlinearity to `out`."""
        if self.slope != 1:
            F.leaky_relu_(self.out_rows, self.slope)

    def quantize(self) -> Tensor:
        """Round `out` like `fixed_point.quantize`, and return it as a tensor."""
        anchor, bits = self.anchor, self.anchor.view(np.int32)
        np.abs(self.out, out=self.scratch)
        torch.amax(self.scratch_rows, 1, True, out=self.anchor_rows)
        np.maximum(anchor, _ROW_MIN, out=anchor)
        np.minimum(anchor, _ROW_MAX, out=anchor)
        np.bitwise_and(bits, _EXPONENT_FIELD, out=bits)
        np.multiply(anchor, _ANCHOR, out=anchor)
        return self.out_rows.add_(self.anchor_rows).sub_(self.anchor_rows).clamp_(-_LIMIT, _LIMIT)


class _Step(NamedTuple):
    """Memory for steps of some number of positions."""

    context: list[LatentArray]
    """(positions, 12, M) for each piece of the latents."""
    context_rows: list[Tensor]
    """The same as (positions, 12 M); bytes with more rows, see `padded_rows`."""
    layers: list[_Layer]
    """g_cm and the layers of g_ep."""


class StepNetwork:
    """Network that computes `ExactContextNetwork.raw` at up to `FEW_ROWS` positions. Not thread-safe.

    Args:
        network: network on a CPU.
        y: (pieces, positions + 1, M) latents in coding order, to which the caller adds between calls; float32, or uint8
            as for `ByteProduct`.
    """

    def __init__(self, network: ExactContextNetwork, y: LatentArray) -> None:
        self._network_layers = [network.context, *network.layers]
        self._bytes = network.byte_context if y.dtype == np.uint8 else None
        self._y = y
        self._memory = _Memory()
        self._steps: dict[int, _Step] = {}

    def raw(self, taps: IndexArray, from_psi: Float32Array | None) -> Float32Array:
        """Compute the raw entropy parameters at P positions.

        Args:
            taps: (P, 12) rows of y that form the context of each position.
            from_psi: see `ExactContextNetwork.raw`.

        Returns:
            (P, outputs) integers, valid until the next call.
        """
        step = self._steps.get(len(taps)) or self._prepare(*taps.shape)
        first, *others = step.layers
        sums = first.bias
        for y, context, rows in zip(self._y, step.context, step.context_rows, strict=True):
            y.take(taps, axis=0, out=context, mode="clip")  # other modes make a copy
            if self._bytes is not None:
                first.add_bytes(sums, rows, self._bytes)
            else:
                first.add(sums, rows)
            sums = first.out
        before = first
        for layer in others:
            layer.add(layer.bias if from_psi is None else from_psi, before.quantize())
            layer.activate()
            before, from_psi = layer, None
        raw = before.out
        np.multiply(raw, _RAW_STEPS, out=raw)
        np.rint(raw, out=raw)
        before.out_rows.clamp_(-RAW_CLAMP, RAW_CLAMP)
        return raw

    def _prepare(self, num_rows: int, num_taps: int) -> _Step:
        """Arrange the memory for a number of positions."""
        padded = num_rows if self._bytes is None else padded_rows(num_rows)
        shape, dtype = (padded, num_taps, self._y.shape[2]), self._y.dtype
        whole = [self._memory.array(f"context {piece}", shape, dtype) for piece in range(len(self._y))]
        layers = [self._layer(f"layer {number}", layer, num_rows) for number, layer in enumerate(self._network_layers)]
        context_rows = [torch.from_numpy(part).flatten(1) for part in whole]
        step = _Step([part[:num_rows] for part in whole], context_rows, layers)
        self._steps[num_rows] = step
        return step

    def _layer(self, name: str, layer: FixedPointLayer, num_rows: int) -> _Layer:
        num_out = len(layer.bias)
        out, scratch = (self._memory.array(f"{name}, {part}", (num_rows, num_out)) for part in ("out", "scratch"))
        anchor = self._memory.array(f"{name}, anchor", (num_rows, 1))
        return _Layer(
            layer.weight[0], layer.packed[0], layer.bias.numpy(), layer.slope, out, torch.from_numpy(out), scratch,
            torch.from_numpy(scratch), anchor, torch.from_numpy(anchor)
        )  # fmt: skip


class _Memory:
    """Named memory for up to `FEW_ROWS` rows, shared by steps of all sizes."""

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return the memory of that name as an array of `shape`, whose first dimension counts rows."""
        if name not in self._buffers:
            self._buffers[name] = np.empty(FEW_ROWS * math.prod(shape[1:]), dtype=dtype)
        return self._buffers[name][: math.prod(shape)].reshape(shape)
