"""Reads an export without torch, as numpy arrays: weights in float32, tables in float64.

The counterpart of `model_io.export.load_export`; docs/file-format.md describes the types of tensors.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.arrays import Float32Array, Float64Array
from jahp_pl.config import ModelConfig
from jahp_pl.files import json_content
from jahp_pl.model_io.export_config import (
    CONFIG_FILE,
    TABLE_PREFIX,
    WEIGHTS_FILE,
    ExportDescription,
    ExportError,
    read_checked_weights,
    read_description,
)
from jahp_pl.model_io.tensor_layout import EXPONENT_SUFFIX, MASKED_KERNEL, check_layout, stored_layout
from jahp_pl.runtime.weight_shapes import weight_shapes

_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "i1", "BF16": "<u2"}
"""Types of safetensors. numpy has no bfloat16, so its bits are kept."""


class StoredModel(NamedTuple):
    """The contents of an export."""

    config: ModelConfig
    fingerprint: bytes
    """Fingerprint that the export states, 8 bytes."""
    state: LazyWeights
    """Weights by name; of g_cm only the taps that are not masked, (2M, M, 12)."""
    tables: dict[str, Float64Array]
    """Coding tables by name, see `Codec.tables`."""


def read_export(folder: Path) -> StoredModel:
    """Read a folder that `jahp export` wrote.

    Raises:
        ExportError: if a file is missing, damaged, altered or in another format, or a weight is missing, unknown, not
            finite, or of another shape or type.
    """
    described = read_description(folder)
    arrays = _read_tensors(folder, described.checksum)
    tables = {
        name.removeprefix(TABLE_PREFIX): arrays.pop(name).astype(np.float64)
        for name in list(arrays)
        if name.startswith(TABLE_PREFIX)
    }
    _check_weights(folder, described, arrays)
    return StoredModel(described.architecture, described.fingerprint, LazyWeights(arrays), tables)


def _check_weights(folder: Path, described: ExportDescription, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Check that the file has the weights that config.json describes, and nothing else but tables."""
    try:
        shapes = weight_shapes(described.architecture)
    except ValueError as error:
        raise ExportError(f"{folder}: {error}") from None
    layout = stored_layout(shapes, described.dtype, described.version)
    dtypes = {name: "bfloat16" if array.dtype == np.uint16 else str(array.dtype) for name, array in arrays.items()}
    try:
        check_layout(layout, arrays, dtypes)
    except ValueError as error:
        raise ExportError(
            f"{folder / WEIGHTS_FILE}: does not fit {CONFIG_FILE}: {error}; export the model again"
        ) from None
    weights = LazyWeights(arrays)
    if unusable := next((name for name in weights if not weights.is_finite(name)), None):
        raise ExportError(f"{folder / WEIGHTS_FILE}: {unusable} is not finite; export the model again")


def _read_tensors(folder: Path, checksum: str) -> dict[str, npt.NDArray[np.generic]]:
    """Read model.safetensors: the length of its header, the header in JSON, and the bytes that the header describes.

    The arrays share the file's bytes; the safetensors package would copy them.
    """
    data = read_checked_weights(folder, checksum)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json_content.parse(data[8 : 8 + length])
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            (start, end), shape, dtype = entry["data_offsets"], entry["shape"], np.dtype(_TYPES[entry["dtype"]])
            if (count := math.prod(shape)) * dtype.itemsize != end - start:
                raise ValueError(f"the size of {name} does not match its shape")
            arrays[name] = np.frombuffer(data, dtype, count, 8 + length + start).reshape(shape)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
        reason = str(error) if isinstance(error, ValueError) else "its header is malformed"
        raise ExportError(f"{folder / WEIGHTS_FILE}: is damaged ({reason}); fetch it again") from None
    return arrays


class LazyWeights(Mapping[str, Float32Array]):
    """Weights of a model by name, each converted to float32 whenever it is looked up.

    Args:
        arrays: tensors of an export except tables.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Float32Array:
        values = self._arrays[name]
        if values.dtype == np.uint16:  # bfloat16: the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        weights = values.astype(np.float32)
        if name + EXPONENT_SUFFIX in self._arrays:
            exponents = np.clip(self._arrays[name + EXPONENT_SUFFIX].astype(np.int32), -126, 127)
            weights *= ((exponents + 127) << 23).view(np.float32)  # powers of two, assembled from their bits
        if name == MASKED_KERNEL and weights.ndim == 4:  # format 1 stores all taps
            weights = weights.reshape(*weights.shape[:2], -1)[:, :, : weights[0, 0].size // 2]
        return weights

    def is_finite(self, name: str) -> bool:
        """Check whether all numbers of a weight are finite, if possible without converting them."""
        values = self._arrays[name]
        if values.dtype == np.uint16:  # bfloat16
            return int((values.view(np.uint16) & 0x7FFF).max(initial=0)) < 0x7F80
        exponents = self._arrays.get(name + EXPONENT_SUFFIX)
        if exponents is not None and int(exponents.max(initial=0)) < 120:  # q 2^e with q up to 2^7
            return True
        with np.errstate(over="ignore"):
            return bool(np.isfinite(self[name]).all())

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._arrays if not name.endswith(EXPONENT_SUFFIX))

    def __len__(self) -> int:
        return sum(1 for _ in self)
