"""Multiplies bytes with fixed weights on a CPU, several times as fast as in float32.

Weights of up to 15 bits are split into two bytes, w = 256 high + low. A processor with VNNI instructions sums four
products of bytes at once, so both halves together take half the time of a product in float32, and half the memory.

Guarantees: results are exact. Before weights are used, rows with extreme sums are multiplied both in bytes and in
float32. On processors without VNNI, sums of bytes may saturate; the results then differ, and float32 is used instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.timing import shortest_times

ZERO_POINT = 128
"""Byte that represents 0: a byte b stands for b - 128."""
LOWEST, HIGHEST = -ZERO_POINT, 255 - ZERO_POINT
"""Range of the numbers that bytes represent."""
_RADIX = 2**8
"""Factor of a weight's high byte."""
_LARGEST = _RADIX * HIGHEST + HIGHEST
"""Largest magnitude of a weight that two bytes represent."""
_ROWS = 16
"""Rows of the product with which exactness and speed are tested."""
_BLOCK = 256
"""Rows that are multiplied at a time."""


class ByteProduct:
    """Product of numbers from -128 to 127 with fixed weights.

    Args:
        weight: (in, out) float32 integers whose products with any row sum up to less than 2^24 in magnitude.
        grid: (out,) float32, powers of two: value of one integer step of a weight.

    Raises:
        ValueError: if weights do not fit two bytes.
    """

    def __init__(self, weight: Tensor, grid: Tensor) -> None:
        largest = float(weight.abs().max())
        if largest > _LARGEST:
            raise ValueError(f"weights up to {largest:.0f} do not fit two bytes, at most {_LARGEST}; use float32")
        integers = weight.to(torch.int16)
        low = integers.to(torch.int8)  # modulo 2^8
        high = ((integers - low) >> 8).to(torch.int8)
        num_in, self._num_out = integers.shape
        halves = torch.cat([low.t(), high.t()]).contiguous()  # oneDNN ignores strides here
        self._packed = torch.ops.onednn.qlinear_prepack(halves, [_ROWS, num_in])
        self._scales = torch.cat([grid, _RADIX * grid])
        self._weight_zero_points = torch.zeros(2 * self._num_out, dtype=torch.int64)

    def halves(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows (n, in) uint8 with the low and the high bytes; the sum of both (n, out) is the product."""
        both = torch.ops.onednn.qlinear_pointwise.default(
            rows, 1.0, ZERO_POINT, self._packed, self._scales, self._weight_zero_points, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        return both[:, : self._num_out], both[:, self._num_out :]

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute (rows - 128) @ weight * grid: (n, in) uint8 -> (n, out) float32."""
        product = torch.empty(len(rows), self._num_out, dtype=torch.float32)
        for block, out in zip(torch.split(rows, _BLOCK), torch.split(product, _BLOCK), strict=True):
            missing = padded_rows(len(block)) - len(block)
            low, high = self.halves(F.pad(block, (0, 0, 0, missing)) if missing else block)
            torch.add(low[: len(block)], high[: len(block)], out=out)
        return product


def byte_product_if_faster(weight: Tensor, grid: Tensor) -> ByteProduct | None:
    """Return a byte product with these weights; None unless it is exact and faster than float32 on this processor.

    Args:
        weight: see `ByteProduct`.
        grid: see `ByteProduct`.
    """
    if weight.device.type != "cpu":
        return None
    values, rows = weight * grid, _extreme_rows(weight)
    numbers = rows.float() - ZERO_POINT
    try:
        product = ByteProduct(weight, grid)
        if not torch.equal(product(rows), torch.mm(numbers, values)):
            return None
    except (AttributeError, RuntimeError, ValueError):  # wide weights, built without oneDNN, or another interface to it
        return None
    in_bytes, in_floats = shortest_times(lambda: product(rows), lambda: torch.mm(numbers, values))
    return product if in_bytes < in_floats else None


def padded_rows(num_rows: int) -> int:
    """Round a number of rows up to one of a few, because oneDNN spends half a millisecond on each new number."""
    step = 4 if num_rows <= 32 else 8
    return -(-num_rows // step) * step


def _extreme_rows(weight: Tensor) -> Tensor:
    """Return rows of bytes (16, in) with extreme sums: largest or smallest for 14 outputs, and two of equal bytes."""
    columns = torch.arange(_ROWS - 2) * (weight.shape[1] - 1) // (_ROWS - 2)
    largest = torch.where(weight[:, columns].t() < 0, LOWEST, HIGHEST)
    largest[1::2] = -1 - largest[1::2]
    same = torch.tensor([LOWEST, HIGHEST])[:, None].expand(2, weight.shape[0])
    return (torch.cat([largest, same]) + ZERO_POINT).to(torch.uint8)
