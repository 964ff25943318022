"""The runtimes decode each other's files to the same latents; `make runtimes` checks this on all of Kodak."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from checks.exactness.runtimes import main
from jahp_pl.model_io.export import export
from tests.support.codec_models import kodak_crop, load_golden


def test_an_export_given_by_its_path_decodes_equally_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    export(load_golden("joint"), tmp_path / "export", {})
    Image.fromarray(kodak_crop("kodim05", 48, 80)).save(tmp_path / "image.png")
    out = tmp_path / "out.json"
    words = ["--model", tmp_path / "export", "--images", tmp_path / "image.png", "--out", out]
    monkeypatch.setattr(sys, "argv", ["runtimes", *map(str, words)])
    main()
    (result,) = json.loads(out.read_text())["models"].values()
    assert result["images"] == 1
    assert len(result["different_latents"]) >= 4
    assert not any(result["different_latents"].values())
