"""Writes configuration files."""

from __future__ import annotations

import itertools
import typing
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> typing.Callable[..., str]:
    """Write a YAML file with this text."""
    numbers = itertools.count()

    def write_file(text: str) -> str:
        path = tmp_path / f"{next(numbers)}.yaml"
        path.write_text(text)
        return str(path)

    return write_file
