"""Fixtures for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from jahp_pl.model_io.export import export
from tests.support.codec_models import load_golden


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export of the golden joint model."""
    folder = tmp_path_factory.mktemp("model") / "golden"
    export(load_golden("joint"), folder, {})
    return folder
