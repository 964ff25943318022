"""`--effort` lets commands search, and results name it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.report.read_results import read_curves
from tests.support.codec_models import kodak_crop
from tests.support.commands import run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_commands_search_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(kodak_crop("kodim05")[:96, :96]).save("photos/a.png")
    for effort in ("0", "1"):
        assert run("compress", "photos/a.png", "-o", f"{effort}.jahp", "--effort", effort) == 0
    assert Path("1.jahp").read_bytes() != Path("0.jahp").read_bytes()
    assert run("compress", "photos/a.png", "-o", "none.jahp", "--memory", "64") == 0
    assert Path("none.jahp").read_bytes() == Path("0.jahp").read_bytes()
    results = ("--model", "joint-psnr", "--images", "photos")
    assert run("evaluate", *results, "--effort", "1", "--out", "r.json") == 0
    content = json.loads(Path("r.json").read_text())
    assert content["provenance"]["effort"] == 1
    assert content["images"][0]["mismatched_symbols"] == 0
    assert 0.97 < content["mean"]["cross_entropy_bpp"] / content["mean"]["exact_bpp"] < 1.03
    assert read_curves([Path("r.json")])[0].title == "Joint, variable rate, effort 1"
