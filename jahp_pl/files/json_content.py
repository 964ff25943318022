"""Reads JSON from untrusted sources, and checks its shape: the types of all values that a program uses.

Code that gets the values can then rely on their types.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MAX_WHOLE = 2**63
"""Limit of whole numbers. JSON allows any number of digits, but no count is this large, and a float may overflow."""
FINITE = "a finite number"
"""The shape of a number that is neither infinite nor NaN."""
MAX_FILE_BYTES = 2**28
"""Maximum size of a file; results take a few megabytes."""
WHOLE = "its content"
"""Stands for the path of the whole content."""


def is_json(value: object) -> bool:
    """Check whether JSON can hold a value: plain content that is neither circular nor nested too deeply."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


class Nullable:
    """The shape of a value that may be null."""

    def __init__(self, shape: object) -> None:
        self.shape = shape


def read(path: Path, convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Any:
    """Parse a file of JSON; `convert` as for `parse`.

    Raises:
        ValueError: if it is not a regular file (reading a pipe may take forever), is too large or not valid JSON.
        OSError: if it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{size} bytes, more than the maximum of {MAX_FILE_BYTES}")
    return parse(path.read_bytes(), convert)


def parse(data: str | bytes, convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Any:
    """Parse JSON.

    Args:
        data: the text.
        convert: function whose result takes the place of each object, innermost first.

    Raises:
        ValueError: if it is not valid JSON, or is nested too deeply.
    """
    try:
        return json.loads(data, object_hook=convert)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def first_mismatch(value: object, shape: object, path: str = "") -> str | None:
    """Return the path of the first value in JSON content that does not have the expected shape; None if there is none.

    Args:
        value: mappings, lists, text, numbers, truth values and None, in any nesting.
        shape: `str`, `bool`, `int`, `float` (which includes whole numbers and NaN) or `FINITE`; `[shape]` for a list;
            a mapping from keys to shapes, where a key that ends in "?" may be missing and further keys are allowed;
            `Nullable(shape)`; or None for anything.
        path: path of `value`, with which the result begins.
    """
    if shape is None:
        return None
    if isinstance(shape, Nullable):
        return None if value is None else first_mismatch(value, shape.shape, path)
    if isinstance(shape, list):
        inner = value if isinstance(value, list) else []
        found = (first_mismatch(one, shape[0], f"{path}[{number}]") for number, one in enumerate(inner))
        return (path or WHOLE) if not isinstance(value, list) else next((one for one in found if one is not None), None)
    if isinstance(shape, Mapping):
        return _mismatch_in(value, shape, path) if isinstance(value, dict) else path or WHOLE
    return None if _is_plain(value, shape) else path or WHOLE


def _mismatch_in(value: dict[str, Any], shape: Mapping[str, object], path: str) -> str | None:
    for key, inner in shape.items():
        name = key.removesuffix("?")
        place = f"{path}.{name}" if path else name
        if name in value:
            if (found := first_mismatch(value[name], inner, place)) is not None:
                return found
        elif name == key:
            return place
    return None


def _is_plain(value: object, kind: object) -> bool:
    """Check a value that is neither a list nor a mapping."""
    if isinstance(value, bool) or kind in (str, bool):
        return type(value) is kind
    if isinstance(value, int):
        return kind in (int, float, FINITE) and abs(value) < MAX_WHOLE
    return isinstance(value, float) and (kind is float or (kind == FINITE and math.isfinite(value)))
