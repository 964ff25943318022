"""Tensors of a model as an export stores them: fewer bytes for the same numbers, or for numbers near by if asked.

- Of g_cm's kernels only the taps before the centre, in raster order: (2M, M, 12). The others are masked always.
- bfloat16: kernels take half the bytes. Biases, GDN's beta, the prior and the gains, which are few, stay in float32.
- int8: so do those of h_s, g_cm and g_ep again, as q 2^e with an integer q for each weight and an e for each row, the
  weights that differ in their second index only. The codec itself computes with about as many digits (`fixed_point`).
- Tables, which are float64 where they are used, in 32 bits: all hold integers, or multiples of 2^-16 below 2^8.

Guarantees: `restore(store(state, dtype), ...)` has the numbers of `state` to the last bit in float32, and the nearest
ones otherwise, the same on every machine; masked taps become 0. Storing once more changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jahp_pl.codec.entropy.freezing import FreezeError
from jahp_pl.model_io.checkpoint import first_difference

Dtype = Literal["float32", "bfloat16", "int8"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
MASKED = "g_cm.weight"
COARSE = ("h_s.", "g_cm.", "g_ep.")
"""Prefixes of the names of what int8 is for: the networks of which the codec makes integers."""
FINE = ("prior.", "gains.")
"""Prefixes of the names of what stays in float32 always: few numbers that much depends on."""
EXPONENT = ".exponent"
"""Behind the name of a tensor of q: its e."""


def store(state: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    """Weights as they lie in the file.

    Args:
        state: state dict of a `CompressionModel`.
        dtype: of kernels.

    Raises:
        FreezeError: weights that are not finite, for which there is no q.
    """
    stored = {}
    for name, tensor in state.items():
        live = tensor.flatten(2)[:, :, : tensor[0, 0].numel() // 2] if name == MASKED else tensor
        kind = _dtype_of(name, tensor, dtype)
        if kind is torch.int8:
            stored[name], stored[name + EXPONENT] = _to_integers(name, live.float())
        else:
            stored[name] = live.to(kind).contiguous()
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
    layout = _layout(wanted, dtype, all_taps)
    if difference := first_difference(layout, stored):
        raise ValueError(difference)
    for name, expected in layout.items():  # in the model's order: safetensors gives a file's names in any
        if stored[name].dtype != expected.dtype:
            raise ValueError(f"{name} is {stored[name].dtype}, not {str(expected.dtype).removeprefix('torch.')}")
    state = {name: stored[name].float() for name in wanted}
    for name in wanted:
        if name + EXPONENT in stored:
            state[name] = state[name] * _power(stored[name + EXPONENT])
    if MASKED in state and not all_taps:
        live, shape = state[MASKED], wanted[MASKED].shape
        state[MASKED] = F.pad(live, (0, shape[2] * shape[3] - live.shape[2])).view(shape)
    return state


def store_table(table: Tensor) -> Tensor:
    """A float64 table in the smallest of int32, float32 and float64 that holds it exactly."""
    smaller = (table.to(dtype) for dtype in (torch.int32, torch.float32))
    return next((one for one in smaller if torch.equal(one.double(), table)), table)


def _layout(wanted: Mapping[str, Tensor], dtype: Dtype, all_taps: bool) -> dict[str, Tensor]:
    """Tensors without numbers of the names, shapes and types that a file has."""
    layout = {}
    for name, tensor in wanted.items():
        shape = tuple(tensor.shape)
        if name == MASKED and not all_taps:
            shape = (*shape[:2], shape[2] * shape[3] // 2)
        kind = _dtype_of(name, tensor, dtype)
        layout[name] = torch.empty(shape, dtype=kind, device="meta")
        if kind is torch.int8:
            layout[name + EXPONENT] = torch.empty((shape[0], 1, *shape[2:]), dtype=kind, device="meta")
    return layout


def _dtype_of(name: str, tensor: Tensor, dtype: Dtype) -> torch.dtype:
    if dtype == "float32" or tensor.ndim < 2 or name.startswith(FINE):
        return torch.float32
    return torch.int8 if dtype == "int8" and name.startswith(COARSE) else torch.bfloat16


def _to_integers(name: str, weights: Tensor) -> tuple[Tensor, Tensor]:
    """q up to +-127, and the least e of each row for which they suffice, from -126 to 127."""
    largest = weights.abs().amax(1, keepdim=True)
    if not bool(torch.isfinite(largest).all()):
        raise FreezeError(f"{name}: has weights that are not finite; train again from an earlier checkpoint")
    mantissa, exponent = torch.frexp(largest / 127)
    exponent = (exponent - (mantissa == 0.5).int()).clamp(-126, 127).to(torch.int8)
    return torch.round(weights / _power(exponent)).clamp(-127, 127).to(torch.int8), exponent


def _power(exponent: Tensor) -> Tensor:
    """2^e in float32, put together from its bits: another machine's pow may be off by one."""
    return ((exponent.int().clamp(-126, 127) + 127) << 23).view(torch.float32)
