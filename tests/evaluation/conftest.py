"""Models to evaluate, and images to evaluate them on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from jahp_pl.model_io import pretrained
from jahp_pl.model_io.export import export
from tests.support import ROOT
from tests.support.codec_models import load_golden


@pytest.fixture
def models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bundled single-rate models, and two variable-rate models."""
    folder = tmp_path_factory.mktemp("package") / "weights"
    for number in (1, 2):
        model = load_golden("joint")
        with torch.no_grad():
            model.g_s[-1].bias += number / 100
        export(model, folder / f"small-{number}", {"loss": {"lmbda": number / 100}})
    for name, distortion in (("variable", "mse"), ("similar", "ms_ssim")):
        export(load_golden("variable"), folder / name, {"loss": {"lmbda": 0.01, "distortion": distortion}})
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", folder)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small images below the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, number in (("a", 7), ("b", 23)):
        with Image.open(ROOT / "data" / "kodak" / f"kodim{number:02}.png") as image:
            image.crop((100, 100, 140, 124)).save(folder / f"{name}.png")
    return folder
