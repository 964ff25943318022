"""docs/extending.md is correct: its patches, applied to a copy, add a density and a transform that pass the
repository's own tests and that train, export and code.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mpmath
import pytest

from tests.support import pages

PAGE = pages.read("extending")
CODED = """
from pathlib import Path
import torch
import jahp_pl
from jahp_pl.model_io.load import export
from jahp_pl.images.io import decode_rgb
from tests.support.tiny_runs import NOTHING_CODED, PHOTOS, tiny_config, write_tiny_shards
from jahp_pl.training.run import train
assert Path(jahp_pl.__file__).is_relative_to(Path.cwd()), jahp_pl.__file__
torch.set_num_threads(1)
words = ["model.likelihood=secant", "model.transform=residual", "model.num_components=2", "optim.initialization=klt"]
config = tiny_config(Path("runs"), write_tiny_shards(Path("shards")), *words, *NOTHING_CODED, "trainer.max_steps=4")
result = train(config)
export(jahp_pl.load_codec(result.last).model, Path("model"), {})
codec = jahp_pl.load_codec("model")
assert codec.model.config.transform == "residual" and codec.model.config.likelihood == "secant"
image = decode_rgb(PHOTOS / "val" / "dogs.jpg")[:200, :300]
coded = codec.encode(image)
decoded = codec.decode(coded.data)
assert torch.equal(decoded.y_hat, coded.y_hat) and torch.equal(decoded.z_hat, coded.z_hat)
x = torch.from_numpy(image.copy()).movedim(-1, 0)[None].float() / 255
with torch.no_grad():
    output = codec.model(x)
bits = float(output.bits_y.sum() + output.bits_z.sum())
print(f"{8 * len(coded.data) / bits - 1:.4f} longer than {bits / 8:.0f} bytes")
assert 8 * len(coded.data) < 1.01 * bits + 8 * 36
assert (decoded.image.float() / 255 - output.x_hat[0].clamp(0, 1)).abs().max() < 1.1 / 255
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the page's patches."""
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__", "*.jahp")
    for name in ("jahp_pl", "tests"):
        shutil.copytree(pages.ROOT / name, folder / name, ignore=ignore)
    shutil.copy(pages.ROOT / "pyproject.toml", folder)
    (folder / "data").symlink_to(pages.ROOT / "data")
    patches = [block.text for block in pages.blocks(PAGE)]
    assert len(patches) == 5
    for patch in patches:
        pages.apply(patch, folder)
    return folder


def python(folder: Path, *arguments: str) -> str:
    """Run Python in that folder, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_repositorys_tests_accept_the_density_and_the_transform(patched: Path) -> None:
    files = [f"tests/{name}.py" for name in ("test_distributions", "test_transforms", "codec/transforms/test_runner")]
    said = python(patched, "-m", "pytest", "-p", "no:cacheprovider", "-k", "secant or residual", *files)
    passed = re.search(r"(\d+) passed", said)
    assert passed, said
    assert int(passed[1]) >= 14, said


def test_both_at_once_train_export_and_code(patched: Path) -> None:
    python(patched, "-c", CODED)


def test_the_statements_about_the_three_numbers_hold() -> None:
    def tail(t: float) -> float:
        return float(mpmath.atan(mpmath.exp(-mpmath.pi * t / 2)) * 2 / mpmath.pi)

    assert "scale_min=0.064, reach=7.2, extent=11.0" in PAGE
    assert 2 * tail(0.5 / 0.064) == pytest.approx(5.5e-6, rel=0.1)
    assert math.log2(2 * tail(7.2)) == pytest.approx(-16, abs=0.05)
    assert f"F(-11) is 2^{math.log2(tail(11)):.1f}" in PAGE
