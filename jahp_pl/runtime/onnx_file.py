"""Writes ONNX files byte by byte, so that neither torch nor the onnx package is needed to make one.

It covers what the codec's graphs need: nodes with one output, attributes that are numbers, lists of integers or text,
small constants in the file, and weights that stay outside the file and are given to the session by name. The fields and
their numbers are those of onnx.proto3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.arrays import Float32Array
from jahp_pl.codec.varint import to_varint

IR_VERSION, OPSET = 8, 18
FLOAT, UINT8, INT64 = 1, 2, 7
"""Numbers of the tensor types in onnx.proto3."""
TO_END = 2**31
"""End of a slice that reaches to the end of its axis."""
_TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}
_BYTES, _FIXED32 = 2, 5
_EXTERNAL = 1

Attribute = int | float | str | Sequence[int]


class GraphBuilder:
    """A graph under construction. Every method that adds a tensor returns the tensor's name."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._initializers: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self.weights: dict[str, Float32Array] = {}
        """Weights that a session must be given, by name."""

    def input(self, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> str:
        """Declare an input; a dimension given as a word is dynamic."""
        self._inputs.append(_value(name, shape, kind))
        return name

    def output(self, tensor: str, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> None:
        """Declare a tensor as an output with this name."""
        self._nodes.append(_node("Identity", [tensor], name, {}))
        self._outputs.append(_value(name, shape, kind))

    def op(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node, an operator such as "Conv", and return the name of its output."""
        output = f"t{len(self._nodes)}"
        self._nodes.append(_node(kind, inputs, output, attributes))
        return output

    def leaky_relu(self, x: str, slope: float) -> str:
        """Add a LeakyReLU; a slope of 0 makes it a ReLU, a slope of 1 the identity."""
        if slope == 1.0:
            return x
        return self.op("Relu", x) if slope == 0.0 else self.op("LeakyRelu", x, alpha=slope)

    def constant(self, values: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """Add numbers that are stored in the file."""
        array, name = np.asarray(values, dtype=dtype), f"c{len(self._initializers)}"
        head = b"".join(_integer(1, size) for size in array.shape) + _integer(2, _TYPES[array.dtype]) + _text(8, name)
        little = array.astype(array.dtype.newbyteorder("<"))
        self._initializers.append(head + _field(9, little.tobytes()))
        return name

    def weight(self, name: str, values: Float32Array) -> str:
        """Add a weight that is stored outside the file; if the name has been added before, its values are kept."""
        if name not in self.weights:
            self.weights[name] = values
            head = b"".join(_integer(1, size) for size in values.shape) + _integer(2, FLOAT) + _text(8, name)
            place = _field(13, _text(1, "location") + _text(2, name))
            self._initializers.append(head + place + _integer(14, _EXTERNAL))
        return name

    def to_bytes(self) -> bytes:
        """Return the contents of the ONNX file, without the weights."""
        graph = b"".join(_field(1, node) for node in self._nodes) + _text(2, "jahp_pl")
        graph += b"".join(_field(5, initializer) for initializer in self._initializers)
        graph += b"".join(_field(11, value) for value in self._inputs)
        graph += b"".join(_field(12, value) for value in self._outputs)
        return _integer(1, IR_VERSION) + _text(2, "jahp_pl") + _field(7, graph) + _field(8, _integer(2, OPSET))


def _node(kind: str, inputs: Sequence[str], output: str, attributes: dict[str, Attribute]) -> bytes:
    node = b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, kind)
    return node + b"".join(_field(5, _attribute(name, value)) for name, value in attributes.items())


def _attribute(name: str, value: Attribute) -> bytes:
    head = _text(1, name)
    if isinstance(value, float):
        return head + to_varint(2 << 3 | _FIXED32) + struct.pack("<f", value) + _integer(20, 1)
    if isinstance(value, int):
        return head + _integer(3, value) + _integer(20, 2)
    if isinstance(value, str):
        return head + _text(4, value) + _integer(20, 3)
    return head + b"".join(_integer(8, number) for number in value) + _integer(20, 7)


def _value(name: str, shape: Sequence[int | str], kind: int) -> bytes:
    sizes = (_text(2, size) if isinstance(size, str) else _integer(1, size) for size in shape)
    dimensions = b"".join(_field(1, size) for size in sizes)
    return _text(1, name) + _field(2, _field(1, _integer(1, kind) + _field(2, dimensions)))


def _field(number: int, content: bytes) -> bytes:
    return to_varint(number << 3 | _BYTES) + to_varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _integer(number: int, value: int) -> bytes:
    return to_varint(number << 3) + to_varint(value % 2**64)
