"""Reads the files of results/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
"""Values of lambda of the published models; the study has the first four."""


def result(name: str) -> Any:
    """Read a file of results/."""
    return json.loads((RESULTS / f"{name}.json").read_text())
