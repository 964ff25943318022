"""Tensors of a model as an export stores them: fewer bytes for the same numbers.

- Of g_cm's kernels only the taps before the centre, in raster order: (2M, M, 12). The others are masked always.
- Kernels in bfloat16 where that is asked for: half the bytes. Biases, GDN's beta and the prior, which are few, stay in
  float32.
- Tables, which are float64 where they are used, in 32 bits: all hold integers, or multiples of 2^-16 below 2^8.

Guarantees: `restore(store(state, dtype), dtype)` has the numbers of `state` to the last bit in float32, and those of
the nearest bfloat16 in bfloat16; masked taps become 0. Storing once more changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.checkpoint import first_difference

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MASKED = "g_cm.weight"
PRIOR = "prior."
"""Prefix of the names of its weights."""


def store(state: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    """Weights as they lie in the file.

    Args:
        state: state dict of a `CompressionModel`.
        dtype: of kernels.
    """
    stored = {}
    for name, tensor in state.items():
        live = tensor.flatten(2)[:, :, : tensor[0, 0].numel() // 2] if name == MASKED else tensor
        stored[name] = live.to(_dtype_of(name, tensor, dtype)).contiguous()
    return stored


def restore(
    stored: dict[str, Tensor], wanted: Mapping[str, Tensor], dtype: Dtype, all_taps: bool = False
) -> dict[str, Tensor]:
    """The state dict in float32.

    Args:
        stored: from a file; may be anything.
        wanted: tensors of the names and shapes that the model has; numbers are not looked at.
        dtype: of kernels.
        all_taps: masked ones are stored too, as format 1 of exports has it.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape or type; the message names it.
    """
    shapes = {name: _stored_shape(name, tensor, all_taps) for name, tensor in wanted.items()}
    if difference := first_difference({k: torch.empty(shape, device="meta") for k, shape in shapes.items()}, stored):
        raise ValueError(difference)
    for name, tensor in stored.items():
        if tensor.dtype != (right := _dtype_of(name, wanted[name], dtype)):
            raise ValueError(f"{name} is {tensor.dtype}, not {str(right).removeprefix('torch.')}")
    state = {name: tensor.float() for name, tensor in stored.items()}
    if MASKED in state and not all_taps:
        live, shape = state[MASKED], wanted[MASKED].shape
        state[MASKED] = F.pad(live, (0, shape[2] * shape[3] - live.shape[2])).view(shape)
    return state


def store_table(table: Tensor) -> Tensor:
    """A float64 table in the smallest of int32, float32 and float64 that holds it exactly."""
    smaller = (table.to(dtype) for dtype in (torch.int32, torch.float32))
    return next((one for one in smaller if torch.equal(one.double(), table)), table)


def _stored_shape(name: str, tensor: Tensor, all_taps: bool) -> tuple[int, ...]:
    if name != MASKED or all_taps:
        return tuple(tensor.shape)
    outputs, inputs, height, width = tensor.shape
    return outputs, inputs, height * width // 2


def _dtype_of(name: str, tensor: Tensor, dtype: Dtype) -> torch.dtype:
    return DTYPES[dtype] if tensor.ndim >= 2 and not name.startswith(PRIOR) else torch.float32
