"""The README is correct: its commands run as printed, its files exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import run_shortened
from tests.support.small_data import write_small_data

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line.split("  #")[0] for _, block in BLOCKS for line in block.splitlines() if line.startswith("jahp ")]
PYTHON = [block for language, block in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder like a clone after `make train`, with small images: shards under build/, a model under runs/."""
    path = tmp_path_factory.mktemp("clone")
    (path / "configs").symlink_to(ROOT / "configs")
    write_small_data(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        for split in ("train", "val"):
            run_shortened(f"jahp shards data/photos/{split} --out build/shards/{split}")
        run_shortened("jahp train configs/quickstart.yaml")
    return path


def test_every_command_runs_in_the_order_in_which_it_is_printed(folder, monkeypatch):
    assert len(COMMANDS) >= 8
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        run_shortened(command)
    assert (folder / "parrots.png").exists()
    assert (folder / "kodak.png").exists()
    originals = {path.stem for path in (folder / "data" / "photos" / "val").iterdir()}
    assert {path.stem for path in (folder / "restored").iterdir()} == originals


def test_the_python_example_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"image": np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)}
    for block in PYTHON:
        exec(block, names)
    assert tuple(names["restored"].shape) == (3, 40, 50)


def test_every_make_target_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_file_of_the_tree_and_every_link_exists():
    tree = next(block for _, block in BLOCKS if block.startswith("jahp_pl/"))
    parent = Path()
    for line in tree.splitlines():
        for name in re.findall(r"(?:^|\s)([\w./]+(?:\.py|/))(?=\s|$)", line):
            parent = ROOT if not line.startswith(" ") else ROOT / "jahp_pl"
            assert (parent / name).exists(), name
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
