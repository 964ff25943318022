"""A photograph for tests of images."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.support import ROOT


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A photograph of 96x64 pixels."""
    with Image.open(ROOT / "data" / "photos" / "val" / "peaks.jpg") as image:
        return image.convert("RGB").resize((96, 64))
