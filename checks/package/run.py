# ruff: noqa: T201
"""Tries the package as a new user would: builds it, installs it into a fresh environment, runs it in an empty folder.

python -m checks.package.run DIST

An image is compressed and decompressed with an exported model; the result must equal what this tree decodes. If a model
is bundled, it is tried in the same way.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from checks.package.build import build
from jahp_pl.model_io.export import export
from jahp_pl.model_io.load import load_codec
from jahp_pl.model_io.pretrained import bundled_models
from tests.support.codec_models import load_golden, read

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "data" / "kodak" / "kodim23.png"


def main() -> None:
    """Build and install the package, run it, and compare the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path, help="folder for the distributions; replaced")
    folder: Path = parser.parse_args().dist
    shutil.rmtree(folder, ignore_errors=True)
    built = build(folder)
    print(*built, sep="\n")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        export(load_golden("joint"), place / "model", {})
        shutil.copy(IMAGE, place / "photo.png")
        shell = Shell(place)
        shell.run(sys.executable, "-m", "venv", "venv")
        shell.run("venv/bin/python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt",
                  built.wheel.resolve())  # fmt: skip
        shell.run("venv/bin/jahp", "--help")
        shell.run("venv/bin/jahp", "compress", "photo.png", "--model", "model")
        shell.run("venv/bin/jahp", "decompress", "photo.jahp", "-o", "again.png", "--model", "model")
        shell.run("venv/bin/jahp", "info")
        if bundled_models():
            shell.run("venv/bin/jahp", "compress", "photo.png", "-o", "bundled.jahp")
            shell.run("venv/bin/jahp", "decompress", "bundled.jahp", "-o", "bundled.png")
        image = load_codec(place / "model").decompress((place / "photo.jahp").read_bytes(), as_="numpy")
        # Another build of torch may round a pixel differently.
        assert np.abs(read(place / "again.png").astype(int) - image).max() <= 1
    print("installed and run: the pictures are equal")


class Shell:
    """Runs commands in a folder outside this tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(self, *words: str | Path) -> None:
        """Run a command and print its time."""
        start = time.perf_counter()
        subprocess.run(
            [str(w) for w in words], cwd=self.folder, env=self.environment, check=True, stdout=subprocess.DEVNULL
        )
        print(f"{time.perf_counter() - start:7.2f} s  {' '.join(Path(str(w)).name for w in words)}")


if __name__ == "__main__":
    main()
