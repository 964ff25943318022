"""docs/library.md is correct: its blocks run in order."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jahp_pl import pillow
from jahp_pl.model_io import pretrained
from jahp_pl.model_io.export import export
from tests.support import pages
from tests.support.codec_models import Variant, kodak_crop, model_of, variable_model
from tests.support.commands import run

BLOCKS = pages.blocks(pages.read("library"))


def test_every_block_runs_with_the_output_on_the_page(tmp_path, monkeypatch, capsys):
    assert [language for language, _ in BLOCKS] == ["python"] * 7 + ["sh", "python", "sh", "python"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pillow, "MODELS", pillow.Models())
    monkeypatch.delenv(pillow.MODEL_VARIABLE, raising=False)
    export(model_of(Variant("factorized")), Path("model"), {})  # has the fewest graphs, so it is fast
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", tmp_path / "weights")
    export(variable_model(), tmp_path / "weights" / "joint-psnr", {"loss": {"lmbda": 0.002, "lmbda_max": 0.1}})
    Image.fromarray(kodak_crop()[:64, :96]).save("photo.png")
    names: dict[str, Any] = {}
    for language, block in BLOCKS:
        if language == "sh":
            assert [run(*shlex.split(line)[1:]) for line in block.splitlines()] == [0] * len(block.splitlines())
        else:
            exec(block, names)
    names["image"].close()
    assert "the file is cut short" in capsys.readouterr().out
    assert len(names["images"]) == 3
    assert np.array_equal(np.asarray(names["picture"]), names["array"])
    assert np.array_equal(np.asarray(names["again"]), names["array"])
    assert Path("copy.jahp").read_bytes() == names["data"] == Path("photo.jahp").read_bytes()
    levels = np.rint(names["x_hat"][0].clip(0, 1) * 255) - names["tensor"].numpy()
    assert np.abs(levels).max() <= 1
