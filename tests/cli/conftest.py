"""Fixtures for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import checkpoint
from jahp_pl.model_io.export import export
from tests.support import ROOT
from tests.support.codec_models import kodak_crop, load_golden


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export of the golden joint model."""
    folder = tmp_path_factory.mktemp("model") / "golden"
    export(load_golden("joint"), folder, {})
    return folder


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A checkpoint of an untrained model whose latents are large enough to matter."""
    torch.manual_seed(1)
    model = CompressionModel(ModelConfig(num_filters=16, num_latents=24))
    with torch.no_grad():
        model.g_a[-1].weight.mul_(100)
    path = tmp_path_factory.mktemp("model") / "small.ckpt"
    state = {f"{checkpoint.MODEL_PREFIX}{name}": value for name, value in model.state_dict().items()}
    hyper = {"model": {"entropy_model": "joint", "num_filters": 16, "num_latents": 24}}
    torch.save(
        {
            checkpoint.CHECKPOINT_FORMAT_KEY: checkpoint.CHECKPOINT_FORMAT,
            checkpoint.HYPER_PARAMETERS: hyper,
            "state_dict": state,
        },
        path,
    )
    return path


@pytest.fixture
def photo(tmp_path):
    """A part of a photograph, 217 x 181 pixels, in a folder of its own."""
    path = tmp_path / "photo.png"
    with Image.open(ROOT / "data" / "kodak" / "kodim15.png") as image:
        image.crop((100, 100, 317, 281)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """The images in/one.png and in/sub/two.png, parts of a photograph with different sizes."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(kodak_crop()[:70, :101]).save(folder / "one.png")
    Image.fromarray(kodak_crop("kodim15")[:64, :50]).save(folder / "sub" / "two.png")
    return folder
