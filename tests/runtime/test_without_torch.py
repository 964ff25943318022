"""Coding, commands and the Pillow plugin need no torch; what does need it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jahp_pl.runtime.load import load_runtime
from tests.support.codec_models import kodak_crop

WITHOUT = """
import sys
for name in ("torch", "lightning", "wandb", "tqdm", "onnx", "omegaconf", "matplotlib", "scipy", "torchmetrics",
             "safetensors"):
    sys.modules[name] = None  # as if it were not installed
"""
COMMANDS = """
from jahp_pl.cli.main import main
for words in {commands}:
    try:
        main(words)
    except SystemExit as end:
        assert end.code in (0, None), (words, end.code)
"""
PLUGIN = """
import numpy as np
from PIL import Image
import jahp_pl.pillow
with Image.open({path!r}) as image:
    image.save("again.jahp", quality=30)
    shown = np.asarray(image)
with Image.open("again.jahp") as image:
    assert image.size == shown.shape[1::-1]
    assert 0 < np.abs(np.asarray(image).astype(int) - shown).mean() < 20
"""


def run(code: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_name_that_needs_torch_says_so_and_names_the_codec_that_does_not(tmp_path: Path) -> None:
    done = run(WITHOUT + "import jahp_pl\njahp_pl.load_codec()", tmp_path)
    assert done.stderr.endswith(
        "ModuleNotFoundError: jahp_pl.load_codec needs torch, which is not installed; pip install jahp_pl, "
        "or use jahp_pl.load_runtime, which needs no torch\n"
    )


def test_commands_and_the_plugin_need_no_torch(tmp_path: Path) -> None:
    Image.fromarray(kodak_crop("kodim23", 128, 160)).save(tmp_path / "photo.png")
    commands = [
        ["compress", "photo.png", "--quality", "40", "--verify"],
        ["decompress", "photo.jahp"],
        ["info"],
        ["info", "photo.jahp", "joint-psnr"],
    ]
    done = run(WITHOUT + COMMANDS.format(commands=commands), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert "parameters" in done.stdout
    ours = Image.open(tmp_path / "photo.decoded.png")
    theirs = load_runtime().decompress((tmp_path / "photo.jahp").read_bytes())
    assert np.array_equal(np.asarray(ours), theirs)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    refused = run(WITHOUT + COMMANDS.format(commands=[["info", "run"]]), tmp_path)
    assert "run: onnxruntime reads exports only; make one with `jahp export`" in refused.stderr
    done = run(WITHOUT + PLUGIN.format(path="photo.jahp"), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compress", "photo.png", "--effort", "1"], "jahp: --effort 1: onnxruntime only rounds latents"),
        (["compress", "photo.png", "--device", "cuda"], "jahp: --device cuda: the onnx runtime has cpu only"),
        (["train", "x.yaml"], "jahp: this command needs"),
    ],
)
def test_what_needs_torch_says_so_in_a_line(words: list[str], said: str, tmp_path: Path) -> None:
    Image.fromarray(kodak_crop("kodim23", 32, 32)).save(tmp_path / "photo.png")
    done = run(f"{WITHOUT}\nfrom jahp_pl.cli.main import main\nmain({words!r})", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
