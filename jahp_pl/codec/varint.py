"""Encodes whole numbers in a variable length, as in the headers of .jahp and ONNX files (LEB128)."""

from __future__ import annotations


def to_varint(value: int) -> bytes:
    """Encode a number >= 0 with 7 bits per byte, lowest first, and the top bit set on all but the last byte."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
