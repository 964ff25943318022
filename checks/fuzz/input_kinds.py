"""The kinds of input from outside that the program reads, apart from .jahp files, with valid files to mutate for each.

Reading a folder of such files either succeeds or raises a `JahpError` with one line in plain words.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image

from checks.fuzz import read_inputs
from checks.fuzz.archives import mutated_tar, valid_tar
from checks.fuzz.content import mutated_bytes, mutated_json, mutated_text, mutated_tree
from checks.fuzz.models import checkpoint, export_folders, mutated_checkpoint, mutated_export
from checks.fuzz.mutate import choose
from jahp_pl.settings import all_keys
from tests.support.codec_models import kodak_crop
from tests.support.sweep_files import SMALL

ROOT = Path(__file__).parents[2]
Files = dict[str, bytes]
"""Files of a folder, by their path in it."""
METRICS = b"step,train/loss,train/bpp,val/loss,val/psnr\n" + b"".join(
    b"%d,%d.5,1.25,%s,\n" % (step, step, b"0.5" if step % 20 == 0 else b"") for step in range(10, 100, 10)
)


class InputKind(NamedTuple):
    """One kind of input."""

    mutate: Callable[[np.random.Generator], Files]
    """Returns the files of a case."""
    read: Callable[[Path], None]
    """Reads a folder with these files as the program does."""


def photo() -> bytes:
    """Encode a small photograph."""
    buffer = io.BytesIO()
    Image.fromarray(kodak_crop()[:70, :80]).save(buffer, "JPEG")
    return buffer.getvalue()


def _checkpoint(rng: np.random.Generator) -> Files:
    return {"last.ckpt": mutated_checkpoint(rng, checkpoint())}


def _export(rng: np.random.Generator) -> Files:
    return mutated_export(rng, choose(rng, export_folders()))


def _index(rng: np.random.Generator) -> Files:
    tar = _tar()
    shard = {"name": "shard-000000.tar", "samples": 3, "bytes": len(tar), "sha256": "0" * 64}
    skipped = [{"name": "a.jpg", "reason": "small", "detail": "1x1"}]
    content = {"format": "jahp-shards", "version": 1, "pixels": 9, "shards": [shard, shard], "skipped": skipped}
    return {"index.json": mutated_json(rng, json.dumps(content).encode()), "shard-000000.tar": tar}


def _archive(rng: np.random.Generator) -> Files:
    return {"photos.tar": mutated_tar(rng, _tar())}


@functools.cache
def _tar() -> bytes:
    return valid_tar(photo())


@functools.cache
def _settings_files() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((ROOT / "configs").rglob("*.yaml")))


def _settings(rng: np.random.Generator) -> Files:
    """Mutate a file of settings, or write `key=value` pairs, one per line."""
    kind, file = rng.random(), choose(rng, _settings_files())
    if kind < 0.3:
        return {"settings.yaml": mutated_text(rng, file)}
    if kind < 0.6:
        return {"settings.yaml": _dumped(mutated_tree(rng, yaml.safe_load(file)))}
    if kind < 0.7:
        return {"settings.yaml": mutated_bytes(rng, file)}
    keys = [key for key in all_keys() if key != "imports"]
    pairs = [mutated_text(rng, f"{choose(rng, keys)}=1".encode()) for _ in range(3)]
    return {"pairs.txt": b"\n".join(pair for pair in pairs if b"\x00" not in pair and b"imports" not in pair)}


def _dumped(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False).encode()


@functools.cache
def _result_files() -> tuple[bytes, ...]:
    """Results of models and of a classical codec, cut to three points and three images."""
    found = []
    for name in ("weights/joint-psnr.json", "quickstart.json", "classical/webp.json"):
        content = json.loads((ROOT / "results" / name).read_bytes())
        for curve in content.get("curves", [{"points": [content]}]):
            curve["points"] = curve["points"][:3]
            curve.pop("images", None)
            for point in curve["points"]:
                point["images"] = point["images"][:3]
        found.append(json.dumps(content).encode())
    return tuple(found)


def _results(rng: np.random.Generator) -> Files:
    one, other = choose(rng, _result_files()), choose(rng, _result_files())
    return {"a.json": mutated_json(rng, one), "b.json": other, "is-drawn": bytes(int(rng.random() < 0.05))}


def _sweep(rng: np.random.Generator) -> Files:
    """Mutate a sweep file, its results, or the metrics and the checkpoint of its first point."""
    files = read_inputs.sweep_folder(SMALL, METRICS)
    name = choose(rng, sorted(files))
    if name.endswith(".yaml") and rng.random() < 0.6:
        files[name] = _dumped(mutated_tree(rng, yaml.safe_load(files[name])))
    elif name.endswith(".json"):
        files[name] = mutated_json(rng, files[name])
    else:
        files[name] = mutated_text(rng, files[name]) if rng.random() < 0.7 else mutated_bytes(rng, files[name])
    if rng.random() < 0.1:
        files["runs/small-lmbda0.01/checkpoints/last.ckpt"] = mutated_checkpoint(rng, checkpoint())
    return files


def _metrics(rng: np.random.Generator) -> Files:
    data = mutated_text(rng, METRICS) if rng.random() < 0.7 else mutated_bytes(rng, METRICS)
    return {"run/metrics.csv": data, "is-drawn": bytes(int(rng.random() < 0.05))}


INPUT_KINDS = {
    "checkpoint": InputKind(_checkpoint, read_inputs.read_checkpoint_file),
    "export": InputKind(_export, read_inputs.read_export),
    "index": InputKind(_index, read_inputs.read_index),
    "archive": InputKind(_archive, read_inputs.read_archive),
    "settings": InputKind(_settings, read_inputs.read_settings),
    "results": InputKind(_results, read_inputs.read_results),
    "sweep": InputKind(_sweep, read_inputs.read_sweep_folder),
    "metrics": InputKind(_metrics, read_inputs.read_metrics),
}
"""Kinds of input by name."""


def input_case(seed: int, number: int, names: tuple[str, ...]) -> tuple[str, Files]:
    """Return the kind and the files of a case, a function of the seed and the number alone.

    Args:
        seed: seed of a run.
        number: number of the case, from 0.
        names: kinds of input, which take turns.
    """
    name = names[number % len(names)]
    with torch.random.fork_rng():
        return name, INPUT_KINDS[name].mutate(np.random.default_rng([seed, number]))
