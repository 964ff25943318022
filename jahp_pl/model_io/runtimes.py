"""Names the libraries that can run the networks of a codec: torch and onnxruntime. No torch."""

from __future__ import annotations

import importlib.util
from typing import Literal

Runtime = Literal["torch", "onnx"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")


def default_runtime() -> Runtime:
    """Return torch if it is installed, otherwise onnxruntime."""
    return "onnx" if importlib.util.find_spec("torch") is None else "torch"
