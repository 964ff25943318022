"""docs/guide.md is correct: its commands run in order and leave the files that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.commands import run_shortened
from tests.support.small_data import write_small_data

PAGE = pages.read("guide")


def test_every_command_runs_in_its_order_and_leaves_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(pages.ROOT / "configs")
    data = write_small_data(tmp_path)
    (tmp_path / "home").mkdir()
    for name, part in (("photos", "train"), ("held-out", "val")):
        (tmp_path / "home" / name).symlink_to(data / "photos" / part)
    monkeypatch.chdir(tmp_path)
    commands = pages.commands(PAGE)
    assert len(commands) == 14
    for command in commands:
        run_shortened(command.replace("~", str(tmp_path / "home")))

    run = tmp_path / "runs" / "try"
    table = PAGE.split("| in `runs/try/` | |", 1)[1].split("\n\n", 1)[0]
    for name in re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE):
        assert (run / name).exists(), name
    assert list(run.glob("coding/**/report.json"))
    assert list(run.glob("pictures/**/*.png"))
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert (tmp_path / "evaluation" / "report" / "report.html").exists()
    assert {path.name for path in (tmp_path / "models" / "mine").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    assert len(list((tmp_path / "restored").glob("*.png"))) == 2


def test_the_speed_on_the_page_is_that_of_the_results() -> None:
    results = json.loads((pages.ROOT / "results" / "bench-train.json").read_text())["mbt2018"]
    assert f"{results['variants'][0]['images_per_second']:.1f} crops a second" in PAGE
