"""A folder for exported models."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the exports of a module's tests."""
    return tmp_path_factory.mktemp("models")
