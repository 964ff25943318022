"""Builds the sdist, and the wheel from it, without a network and without leaving files behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE")


class Distributions(NamedTuple):
    """Paths of the sdist and the wheel."""

    sdist: Path
    wheel: Path


def build(folder: Path) -> Distributions:
    """Build sdist and wheel into `folder` with the setuptools of this environment.

    The sources are copied first, because setuptools would include leftovers of earlier builds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        shutil.copytree(ROOT / "jahp_pl", tree / "jahp_pl", ignore=shutil.ignore_patterns("__pycache__"))
        for name in SOURCES:
            shutil.copy(ROOT / name, tree)
        code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder.resolve())!r})"
        _run([sys.executable, "-c", code], tree)
        (sdist,) = folder.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(temporary, filter="data")
        unpacked = Path(temporary) / sdist.name.removesuffix(".tar.gz")
        code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder.resolve())!r})"
        _run([sys.executable, "-c", code], unpacked)
    (wheel,) = folder.glob("*.whl")
    return Distributions(sdist, wheel)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
