"""docs/compressai.md is correct: its blocks run in order, and its table states what each checkpoint becomes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jahp_pl.config import LossConfig, ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import compressai
from tests.support import pages
from tests.support.codec_models import kodak_crop
from tests.support.commands import run
from tests.support.compressai_states import in_their_names, model_of

PAGE = pages.read("compressai")


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(in_their_names(model_of("joint")), "mbt2018.pth.tar")
    Image.fromarray(kodak_crop()[:64, :96]).save("photo.png")
    names: dict[str, Any] = {}
    for language, block in pages.blocks(PAGE):
        if language == "sh":
            assert [run(*shlex.split(line)[1:]) for line in block.splitlines()] == [0] * len(block.splitlines())
        else:
            exec(block, names)
    assert names["x_hat"].shape == (3, 100, 150)
    assert names["bpp"] > 0


def test_the_page_names_every_network_by_its_two_names() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for theirs, ours in compressai.NETWORKS.items():
        assert any(f"`{theirs}`" in row and (f"`{ours}`" in row or "the same" in row) for row in rows), theirs


def test_the_attributes_and_lambdas_on_the_page_exist() -> None:
    assert {"prior", "density"} <= {*dir(CompressionModel(ModelConfig("joint", 8, 12)))}
    for distortion in ("mse", "ms_ssim"):
        [row] = [line for line in PAGE.splitlines() if f"`loss.distortion={distortion}` |" in line]
        lambdas = [float(number) for number in re.findall(r"\| (\d*\.\d+)", row)]
        assert lambdas == sorted(lambdas)
        assert len(lambdas) == 8
        for lmbda in lambdas:
            LossConfig(distortion, lmbda)
