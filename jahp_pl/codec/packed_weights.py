"""Multiplies matrices on a CPU with weights arranged in advance in oneDNN's own layout.

torch multiplies float32 matrices with MKL, which reads the weights in the order in which they are stored. With the few
rows of a decoding step, this order costs a third of the time. On processors that are not Intel's, MKL uses vectors of
half the width. oneDNN, which torch uses for convolutions, has neither drawback.
Guarantees: products of integers whose sums stay below 2^24 are exact, whatever precision the environment allows oneDNN
(`ONEDNN_DEFAULT_FPMATH_MODE`); all others are as precise as float32.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from jahp_pl.codec.torch_settings import full_precision
from jahp_pl.timing import shortest_times

ROWS = 16
"""Number of rows for which weights are arranged; for more rows, the arrangement makes no difference."""


def pack_weight(weight: Tensor) -> Tensor | None:
    """Arrange weights (in, out) float32 for `multiply`; return None if oneDNN is missing or imprecise."""
    if weight.device.type != "cpu" or not _is_precise():
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.t(), ROWS)
    return packed


def pack_if_faster(weight: Tensor) -> Tensor | None:
    """Arrange weights like `pack_weight`; also return None if torch's own product is as fast on this processor.

    Use it only for exact products: others are rounded differently by the two libraries.
    """
    return pack_weight(weight) if weight.device.type == "cpu" and _is_faster() else None


def multiply(rows: Tensor, weight: Tensor, packed: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """Compute rows @ weight + bias: (n, in) @ (in, out) -> (n, out) float32.

    Args:
        rows: (n, in) float32.
        weight: (in, out) float32.
        packed: result of `pack_weight` for these weights; None multiplies with torch.
        bias: (out,) float32, added as part of the sum, in any order; None for none.
    """
    if packed is None or torch.compiler.is_compiling():  # compiled graphs (`model_io.onnx`) have a product of their own
        return torch.mm(rows, weight) if bias is None else torch.addmm(bias, rows, weight)
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, packed, bias, "none", [], "")
    return product


@functools.cache
def _is_precise() -> bool:
    """Check that oneDNN computes in float32, by a product whose factors and sums need all bits of that type."""
    numbers = torch.arange(ROWS * 256.0).view(ROWS, 256) % 61  # 6 bits, and sums of 256 products with up to 10 bits
    weight = torch.arange(256 * 64.0).view(256, 64) % 1021
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), ROWS)
        with full_precision(torch.device("cpu")):
            found = torch.ops.mkldnn._linear_pointwise.default(numbers, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):  # built without oneDNN, or with another interface to it
        return False
    return torch.equal(found.double(), numbers.double() @ weight.double())


@functools.cache
def _is_faster() -> bool:
    """Compare the times of both libraries for a product with few rows; on Intel's processors, MKL is the faster one."""
    rows, weight = (torch.ones(n, 512, dtype=torch.float32) for n in (ROWS, 512))
    packed = pack_weight(weight)
    if packed is None:
        return False
    onednn_time, mkl_time = shortest_times(lambda: multiply(rows, weight, packed), lambda: multiply(rows, weight, None))
    return onednn_time < mkl_time
