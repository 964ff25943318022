"""docs/data.md is correct: its settings exist, its commands run, its figures were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.config import DataConfig
from tests.support import pages
from tests.support.commands import run, run_shortened

ROOT = pages.ROOT
PAGE = pages.read("data")
DEFAULTS = {
    "timeout": "30", "max_broken_share": "0.5", "crops_per_photo": "4", "cache_bytes": "100 GiB"
}  # fmt: skip


def test_every_setting_on_the_page_exists_with_its_default() -> None:
    assert set(re.findall(r"`data\.(\w+)`", PAGE)) <= set(vars(DataConfig()))
    for name, default in DEFAULTS.items():
        assert re.search(rf"`data\.{name}`\s+\({default}\)", PAGE), name
        number, _, unit = default.partition(" ")
        assert getattr(DataConfig(), name) == float(number) * (2**30 if unit else 1)


def test_the_commands_work_as_printed_on_one_machine_and_on_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = ROOT / "data" / "photos" / "val"
    Path("configs").symlink_to(ROOT / "configs")
    Path("more").mkdir()
    Image.open(photos / "peaks.jpg").crop((0, 0, 300, 300)).save("more/scan.tif")
    assert run("shards", photos, "--out", "build/shards/val") == 0  # the configuration's validation shards
    commands = pages.commands(PAGE)
    assert len(commands) == 5
    for command in commands:
        run_shortened(command.replace("~/photos", str(photos)).replace("*.tif", "scan.tif"))
    assert json.loads(Path("shards/mine/index.json").read_text())["samples"] == 5
    indices = [json.loads((tmp_path / f"shards/part-{part}/index.json").read_text()) for part in (1, 2)]
    assert [index["samples"] for index in indices] == [2, 2]


def test_the_figures_are_those_of_the_results() -> None:
    speed, streams = (json.loads((ROOT / "results" / f"{name}.json").read_text()) for name in ("bench-data", "streams"))
    assert f"{speed['h200']['crops_per_second']:.0f} crops a second" in PAGE
    assert f"{streams['shards_bytes_per_photo']:.0f} bytes per photograph" in PAGE
