"""Mutates structured content: plain trees, text made of tokens, and bytes."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from checks.fuzz.mutate import choose, extended, flipped_bits, garbage, other_bytes, spliced, truncated

HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, math.inf, -math.inf, math.nan,
    "", "x", "???", "${name}", "../..", "/", "\x00", "\x1b[31m", "\ud800", "a" * 300, "0", "-1", "nan", [], {}, [[]],
    [None], ["x"], [1, 2, 3], {"x": 1}, {"": {}}, [{}] * 50,
)  # fmt: skip
"""Values in place of others. Among them are numbers that overflow, and text that a terminal or a path must not get."""
HOSTILE_TEXTS = (
    "", "null", "true", "NaN", "Infinity", "-1", "0", "1e999", "1" * 30, "9" * 5000, "0x" + "f" * 5000, '""', "'", '"',
    "[]", "{}", "[" * 5000, "{a: " * 500, "&a [*a]", "*b", "!!binary eA==", "!!set {a}", "2001-99-99", "<<: 1",
    "${", "${x}", "???", "%", "- - -", ":", "x: y: z", "\x00", "\ud7ff", "\u2028", ",", "1e-4", "~",
)  # fmt: skip
"""Texts in place of a token of JSON, YAML or CSV."""
_TOKEN = re.compile(r'"[^"\n]*"|[-+.\w/]+|[\[\]{},:=]')

Bytes = Callable[[np.random.Generator, bytes, bytes], bytes]
BYTE_STRATEGIES: tuple[Bytes, ...] = (flipped_bits, other_bytes, truncated, extended, spliced, garbage)


def mutated_bytes(rng: np.random.Generator, data: bytes, other: bytes = b"") -> bytes:
    """Damage bytes without regard to their structure."""
    return choose(rng, BYTE_STRATEGIES)(rng, data, other or data) if data else rng.bytes(9)


def mutated_text(rng: np.random.Generator, data: bytes) -> bytes:
    """Replace, remove, repeat or exchange one to three tokens of a text."""
    text = data.decode(errors="replace")
    for _ in range(int(rng.integers(1, 4))):
        tokens = list(_TOKEN.finditer(text))
        if not tokens:
            break
        token, other = choose(rng, tokens), choose(rng, tokens)[0]
        new = choose(rng, (choose(rng, HOSTILE_TEXTS), "", token[0] * 2, other, f"{token[0]}, {token[0]}"))
        text = text[: token.start()] + new + text[token.end() :]
    return text.encode(errors="surrogatepass")


def mutated_tree(rng: np.random.Generator, tree: Any, values: tuple[Any, ...] = HOSTILE_VALUES) -> Any:
    """Return a copy of nested dicts and lists in which one to three entries are replaced, removed or exchanged."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        if not places:
            return choose(rng, values)
        holder, key = choose(rng, places)
        other, other_key = choose(rng, places)
        kind = rng.random()
        if kind < 0.6:
            holder[key] = copy.deepcopy(choose(rng, values))
        elif kind < 0.8:
            del holder[key]
        elif kind < 0.9:
            holder[key] = copy.deepcopy(other[other_key])
        elif isinstance(holder, dict):
            holder[choose(rng, ("", "x", f"{key}?", f"{key}.x", 5))] = holder.pop(key)
        else:
            holder.append(copy.deepcopy(holder[key]))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """List all entries as pairs of the dict or list that holds them and their key."""
    found: list[tuple[Any, Any]] = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found.append((tree, key))
        found += _places(value)
    return found


def mutated_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Mutate the tree, the tokens or the bytes of a JSON file."""
    kind = rng.random()
    if kind < 0.6:
        return json.dumps(mutated_tree(rng, json.loads(data))).encode()
    return mutated_text(rng, data) if kind < 0.9 else mutated_bytes(rng, data)
