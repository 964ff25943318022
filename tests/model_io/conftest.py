"""Exports, and a run folder that an export is made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from jahp_pl.model_io import checkpoint
from jahp_pl.model_io.export import export
from tests.support.codec_models import load_golden
from tests.support.exports import FACTS


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """Export of the golden joint model, which tests must not change."""
    folder = tmp_path_factory.mktemp("export") / "golden"
    export(load_golden("joint"), folder, FACTS)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy of `original`."""
    return Path(shutil.copytree(original, tmp_path / "model"))


@pytest.fixture
def run_folder(tmp_path):
    """Create a run folder with the files that an export reads."""
    model = load_golden("joint")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    settings = {
        "name": "secret", "seed": 3, "loss": {"lmbda": 0.02}, "data": {"train": ["/home/me"], "crop_size": 256},
        "optim": {"start_from": "/home/me/runs/former"},
        "model": {"entropy_model": "joint", "num_filters": 8, "num_latents": 12},
    }  # fmt: skip
    content = {
        checkpoint.CHECKPOINT_FORMAT_KEY: checkpoint.CHECKPOINT_FORMAT,
        checkpoint.HYPER_PARAMETERS: settings,
        "global_step": 11,
    }
    content["state_dict"] = {f"{checkpoint.MODEL_PREFIX}{name}": value for name, value in model.state_dict().items()}
    torch.save(content, path)
    return tmp_path / "run"
