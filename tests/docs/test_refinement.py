"""The commands of docs/refinement.md run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests.support import pages
from tests.support.codec_models import kodak_crop
from tests.support.commands import run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/kodak").mkdir(parents=True)
    for path in ("photo.png", "data/kodak/kodim05.png"):
        Image.fromarray(kodak_crop("kodim05")[:80, :80]).save(path)
    commands = pages.commands(pages.read("refinement"))
    assert len(commands) == 2
    for command in commands:
        assert run(*shlex.split(command)[1:]) == 0
    assert Path("photo.jahp").exists()
