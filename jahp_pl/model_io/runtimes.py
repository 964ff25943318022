"""Which library runs the networks of a codec: torch, or onnxruntime where that is asked for or torch is absent."""

from __future__ import annotations

import importlib.util
from typing import Literal

Runtime = Literal["torch", "onnx"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")


def default_runtime() -> Runtime:
    """torch where it is installed."""
    return "onnx" if importlib.util.find_spec("torch") is None else "torch"
