"""Imports point down, each dependency is imported in one place, and a decoder loads no training dependencies."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jahp_pl

ROOT = Path(jahp_pl.__file__).parent

# From the bottom up: a module or package may import those on earlier lines, not its neighbors on the same line.
LAYERS = (
    ("addresses", "deprecation", "text", "timing"),
    ("errors",),
    ("bfloat16", "files"),
    ("config", "images", "ops", "quality", "strides"),
    ("density_layout",),
    ("blocked_gdn", "distributions", "extensions"),
    ("layers", "settings"),
    ("exact_layers", "transforms"),
    ("hyperprior",),
    ("context",),
    ("entropy_model", "gains"),
    ("model",),
    ("loss", "initialization"),
    ("codec",),
    ("model_io", "measurement", "data"),
    ("runtime", "training"),
    ("evaluation",),
    ("bench", "sweeping", "report"),
    ("pillow",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

IMPORTERS = {
    "argcomplete": ("cli/command_line.py",),
    "constriction": ("codec/entropy/range_coder.py",),
    "huggingface_hub": ("model_io/pretrained.py",),
    "onnxruntime": ("runtime/networks.py",),
    "safetensors": ("model_io/export.py",),
    "webdataset": ("data/pipeline.py", "data/remote.py", "data/urls.py"),
    "omegaconf": ("settings.py",),
    "lightning": ("training/", "data/module.py", "bench/training_worker.py"),
    "wandb": ("training/",),
    "torchmetrics": ("training/",),
    "matplotlib": ("training/", "report/", "evaluation/picture.py"),
    "bjontegaard": ("report/bd_rate.py",),
    "optuna": ("sweeping/bayes.py",),
    "imageio_ffmpeg": ("evaluation/classical_optional.py",),
    "pillow_heif": ("evaluation/classical_optional.py", "images/heif.py"),
    "pillow_jxl": ("evaluation/classical_optional.py",),
}
"""Files and folders that alone may import a dependency."""

FILES = sorted(ROOT.rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the dotted names of all imports of a file, without imports from the package that are for types only."""
    tree = ast.parse(path.read_text())
    if unit(path) == "__init__":
        tree.body = [node for node in tree.body if ast.unparse(node).split(":")[0] != "if TYPE_CHECKING"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, not relative"
            assert node.module is not None
            if node.module == "jahp_pl":
                yield from (f"jahp_pl.{alias.name}" for alias in node.names)
            else:
                yield node.module


def unit(path: Path) -> str:
    """Return the module, or the package below `jahp_pl`, to which a file belongs."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = unit(path)
    others = {name.split(".")[1] for name in imported_modules(path) if name.startswith("jahp_pl.")} - {own}
    if own == "__init__":
        assert not others, "importing the package must stay free of everything"
        return
    assert own in LEVEL, f"give {own} its place in LAYERS"
    for other in others:
        assert LEVEL[other] < LEVEL[own], f"{own} must not import {other}"


@pytest.mark.parametrize("dependency", IMPORTERS)
def test_each_dependency_is_imported_in_one_place(dependency: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == dependency for name in imported_modules(path))
    }
    assert users, f"nothing uses {dependency}"
    others = {user for user in users if not user.startswith(IMPORTERS[dependency])}
    assert not others


def test_a_decoder_does_not_load_training_dependencies() -> None:
    unwanted = {"lightning", "pytorch_lightning", "wandb", "webdataset", "omegaconf", "torchmetrics", "matplotlib"}
    code = f"""
import sys
import jahp_pl
assert not {{"torch", "numpy"}} & set(sys.modules), "import jahp_pl must be free"
import jahp_pl.codec.codec
print(*sorted({unwanted!r} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
