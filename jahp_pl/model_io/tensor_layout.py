"""Names, shapes and types of the tensors in an export. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

Dtype = Literal["float32", "bfloat16", "int8"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
EXPORT_FORMAT = 4
"""Version of the export format. Versions differ in the weights that are stored as int8; version 1 also stored the
masked taps of g_cm, and tables in float64."""
MASKED_KERNEL = "g_cm.weight"
"""Name of the only kernels with masked taps."""
INT8_PREFIXES = {
    1: ("h_s.", "g_cm.", "g_ep."),
    3: ("h_s.", "g_cm.", "g_ep.", "h_a.", "g_s.4."),
    4: ("h_s.", "g_cm.", "g_ep.0.", "g_ep.2.", "h_a.", "g_a.2.", "g_a.4.", "g_a.6."),
}
"""Name prefixes of the weights that int8 exports store as int8, by the version of the export format from which they
apply. The precision of these weights matters least to files and pixels (docs/results.md)."""
FLOAT32_PREFIXES = {1: ("prior.", "gains."), 4: ("prior.", "gains.", "g_a.0.", "g_s.6.")}
"""Name prefixes of the weights that stay in float32 in all exports, by version: few numbers with a large effect."""
EXPONENT_SUFFIX = ".exponent"
"""Suffix of the name under which the exponents e of a weight are stored, if it is stored as q 2^e with integers q."""


class Shaped(Protocol):
    """A tensor, an array, or a description of one."""

    @property
    def shape(self) -> Iterable[int]:
        """Size of each dimension."""
        ...


class StoredTensor(NamedTuple):
    """Shape and type of a tensor in model.safetensors."""

    shape: tuple[int, ...]
    dtype: Dtype


def dtype_of(name: str, num_dimensions: int, dtype: Dtype, version: int) -> Dtype:
    """Return the type in which an export stores one weight.

    Args:
        name: name of the weight.
        num_dimensions: its number of dimensions; biases and other vectors stay in float32.
        dtype: type of the export's kernels.
        version: version of the export format.
    """
    tables = (FLOAT32_PREFIXES, INT8_PREFIXES)
    float32_prefixes, int8_prefixes = (table[max(first for first in table if first <= version)] for table in tables)
    if dtype == "float32" or num_dimensions < 2 or name.startswith(float32_prefixes):
        return "float32"
    return "int8" if dtype == "int8" and name.startswith(int8_prefixes) else "bfloat16"


def stored_layout(weights: Mapping[str, Shaped], dtype: Dtype, version: int = EXPORT_FORMAT) -> dict[str, StoredTensor]:
    """Return the tensors that an export stores for these weights, by name.

    Args:
        weights: names and shapes of the model's weights.
        dtype: type of the kernels.
        version: version of the export format.
    """
    layout = {}
    for name, weight in weights.items():
        shape = tuple(weight.shape)
        kind = dtype_of(name, len(shape), dtype, version)
        if name == MASKED_KERNEL and version > 1:
            shape = (*shape[:2], shape[2] * shape[3] // 2)
        layout[name] = StoredTensor(shape, kind)
        if kind == "int8":
            layout[name + EXPONENT_SUFFIX] = StoredTensor((shape[0], 1, *shape[2:]), kind)
    return layout


def first_difference(expected: Mapping[str, Shaped], found: Mapping[str, Shaped]) -> str | None:
    """Describe the first tensor that is missing, unknown or of another shape; None if all fit."""
    for name, tensor in expected.items():
        if name not in found:
            return f"{name} is missing"
        if (shape := tuple(found[name].shape)) != tuple(tensor.shape):
            return f"{name} has shape {shape} instead of {tuple(tensor.shape)}"
    unknown = next((name for name in found if name not in expected), None)
    return f"{unknown} is unknown" if unknown is not None else None


def check_layout(layout: Mapping[str, StoredTensor], found: Mapping[str, Shaped], dtypes: Mapping[str, str]) -> None:
    """Check the tensors of an untrusted file.

    Args:
        layout: tensors that the file should have, in the model's order, because safetensors has no fixed order.
        found: tensors that it has.
        dtypes: name of the type of each tensor in `found`.

    Raises:
        ValueError: if a tensor is missing, unknown, or of another shape or type; the message names it.
    """
    if difference := first_difference(layout, found):
        raise ValueError(difference)
    for name, expected in layout.items():
        if dtypes[name] != expected.dtype:
            raise ValueError(f"{name} is {dtypes[name]}, not {expected.dtype}")
