"""Converts the tensors of a model for an export, exactly or, if requested, to fewer bytes.

- g_cm: only the taps of its kernels before the center are stored, in raster order, (2M, M, 12), because the others are
  always masked.
- bfloat16: kernels take half the bytes. Biases, GDN's beta, the prior and the gains are small and stay in float32, and
  so do the kernels next to the pixels.
- int8: most kernels take half of that, as q 2^e with an integer q per weight and an e per row, i.e. per group of
  weights that differ only in their second index. Kernels of g_a, h_a and g_ep are rounded by `compensated_rounding`.
  Only those that lose most by it stay in bfloat16: g_s, and the last layer of g_ep, whose outputs are large numbers.
- Tables are used in float64 and stored in 32 bits: all hold integers, or multiples of 2^-16 below 2^8.

Guarantees: `restore(store(state, dtype), ...)` equals `state` to the last bit in float32, and otherwise has the nearest
representable values, the same on every machine; masked taps become 0. Storing the result again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.model_io.tensor_layout import (
    EXPONENT_SUFFIX,
    EXPORT_FORMAT,
    MASKED_KERNEL,
    Dtype,
    check_layout,
    dtype_of,
    stored_layout,
)

MAX_INT8 = 127
"""Largest integer q of int8."""
_TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def store(state: Mapping[str, Tensor], dtype: Dtype, version: int = EXPORT_FORMAT) -> dict[str, Tensor]:
    """Convert weights to the tensors of an export.

    Args:
        state: state dict of a `CompressionModel`.
        dtype: dtype of the kernels.
        version: version of the export format, at least 2.

    Raises:
        UnusableModelError: if weights to store as int8 are not finite.
    """
    stored = {}
    for name, tensor in state.items():
        live = tensor.flatten(2)[:, :, : tensor[0, 0].numel() // 2] if name == MASKED_KERNEL else tensor
        kind = dtype_of(name, tensor.ndim, dtype, version)
        if kind == "int8":
            stored[name], stored[name + EXPONENT_SUFFIX] = _to_integers(name, live.float())
        else:
            stored[name] = live.to(_TORCH_DTYPES[kind]).contiguous()
    return stored


def restore(
    stored: dict[str, Tensor], expected: Mapping[str, Tensor], dtype: Dtype, version: int = EXPORT_FORMAT
) -> dict[str, Tensor]:
    """Convert the tensors of an export to a float32 state dict.

    Args:
        stored: tensors from an untrusted file.
        expected: tensors with the names and shapes of the model; their values are not used.
        dtype: dtype of the kernels.
        version: version of the export format.

    Raises:
        ValueError: if a tensor is missing, unknown, or of another shape or dtype; the message names it.
    """
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in stored.items()}
    check_layout(stored_layout(expected, dtype, version), stored, dtypes)
    state = {name: stored[name].float() for name in expected}
    for name in expected:
        if name + EXPONENT_SUFFIX in stored:
            state[name] = state[name] * power_of_two(stored[name + EXPONENT_SUFFIX])
    if MASKED_KERNEL in state and version > 1:
        live, shape = state[MASKED_KERNEL], expected[MASKED_KERNEL].shape
        state[MASKED_KERNEL] = F.pad(live, (0, shape[2] * shape[3] - live.shape[2])).view(shape)
    return state


def store_table(table: Tensor) -> Tensor:
    """Convert a float64 table to the smallest of int32, float32 and float64 that represents it exactly."""
    smaller = (table.to(dtype) for dtype in (torch.int32, torch.float32))
    return next((one for one in smaller if torch.equal(one.double(), table)), table)


def _to_integers(name: str, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return q up to +-127, and per row the smallest e that suffices, from -126 to 127."""
    if not bool(torch.isfinite(weights).all()):
        raise UnusableModelError(f"{name}: has weights that are not finite; train again from an earlier checkpoint")
    exponent = row_exponents(weights)
    return torch.round(weights / power_of_two(exponent)).clamp(-MAX_INT8, MAX_INT8).to(torch.int8), exponent


def row_exponents(weights: Tensor) -> Tensor:
    """Return the smallest e of each row with which no q exceeds +-127: (out, in, ...) -> (out, 1, ...) in int8."""
    mantissa, exponent = torch.frexp(weights.abs().amax(1, keepdim=True) / MAX_INT8)
    return (exponent - (mantissa == 0.5).int()).clamp(-126, 127).to(torch.int8)


def power_of_two(exponent: Tensor) -> Tensor:
    """Compute 2^e in float32 from its bits, because another machine's pow may be inexact."""
    return ((exponent.int().clamp(-126, 127) + 127) << 23).view(torch.float32)
