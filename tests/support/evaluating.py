"""Runs `jahp evaluate` on the images below photos/ in the working directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import files, run


def evaluate(*more: object, model: object = "small-1") -> int:
    """Evaluate one model with more options, and return the exit status."""
    return evaluate_all((model,), *more)


def evaluate_all(models: Sequence[object], *more: object) -> int:
    """Evaluate several models with more options, and return the exit status."""
    return run("evaluate", "--model", *models, "--images", "photos", *more)


def without_times(content: Any) -> Any:
    """Remove the entries that differ between two calls: times, command and folder."""
    if isinstance(content, dict):
        return {
            k: without_times(v) for k, v in content.items() if k not in ("command", "folder") and "seconds" not in k
        }
    return [without_times(one) for one in content] if isinstance(content, list) else content


def files_here() -> set[str]:
    """Return the names of all files below the working directory."""
    return set(files(Path()))


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error message that a command printed, and check that it is one line."""
    error = capsys.readouterr().err
    assert error.startswith("jahp: ")
    assert error.count("\n") == 1
    return error
