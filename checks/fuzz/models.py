"""Makes checkpoints and exports of small models, and mutates them behind their checksums."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checks.fuzz.content import HOSTILE_VALUES, mutated_bytes, mutated_json, mutated_tree
from checks.fuzz.mutate import choose
from jahp_pl.config import to_dict
from jahp_pl.model_io.checkpoint import CHECKPOINT_FORMAT, CHECKPOINT_FORMAT_KEY, HYPER_PARAMETERS, MODEL_PREFIX
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import CONFIG_FILE, WEIGHTS_FILE
from jahp_pl.model_io.tensor_layout import DTYPES
from jahp_pl.settings import load_config
from tests.support.codec_models import load_golden


@functools.cache
def checkpoint() -> dict[str, Any]:
    """Return the content of a checkpoint of the golden model."""
    model = load_golden("joint")
    settings = to_dict(load_config("model.num_filters=8", "model.num_latents=12", "data.val=[x]", "loss.lmbda=0.01"))
    return {
        CHECKPOINT_FORMAT_KEY: CHECKPOINT_FORMAT,
        HYPER_PARAMETERS: settings,
        "state_dict": {f"{MODEL_PREFIX}{name}": value for name, value in model.state_dict().items()},
        "global_step": 10,
        "training": {"seconds": 9.5, "skipped_steps": 0, "validation_due": False},
        "callbacks": {},
    }


def _hostile_tensors() -> tuple[Any, ...]:
    """Make values that are unfit for a weight or for a number."""
    vast = torch.zeros(1).expand(2**20, 2**12)
    return (
        torch.zeros(0), torch.zeros(3, 3), torch.tensor(float("nan")), torch.full((8,), float("inf")), vast,
        torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 2).to_sparse(), torch.zeros(1, dtype=torch.int64),
        torch.nn.Parameter(torch.ones(12)), torch.empty(12, device="meta"), torch.zeros(12).half(),
    )  # fmt: skip


def mutated_checkpoint(rng: np.random.Generator, content: dict[str, Any]) -> bytes:
    """Mutate entries, a value of a weight, the pickle, or the bytes of a checkpoint."""
    kind = rng.random()
    if kind < 0.55:
        content = mutated_tree(rng, content, HOSTILE_VALUES + _hostile_tensors())
    elif kind < 0.75:
        weights = content["state_dict"]
        name = choose(rng, sorted(weights))
        value = weights[name].clone()
        factor = choose(rng, (float("nan"), float("inf"), 1e30, -1.0, 0.0, 1e-38))
        value.view(-1)[int(rng.integers(value.numel()))] = factor
        content = content | {"state_dict": weights | {name: value * factor if rng.random() < 0.3 else value}}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    if kind < 0.75:
        return data
    return _with_other_pickle(rng, data) if kind < 0.9 else mutated_bytes(rng, data)


def _with_other_pickle(rng: np.random.Generator, data: bytes) -> bytes:
    """Mutate one file in the archive, with a right checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        names = source.namelist()
        changed = choose(rng, [name for name in names if not name.rpartition("/")[2].isdigit()] or names)
        for name in names:
            content = source.read(name)
            target.writestr(name, mutated_bytes(rng, content) if name == changed else content)
    return buffer.getvalue()


@functools.cache
def export_folders() -> tuple[dict[str, bytes], ...]:
    """Export golden models in every dtype."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in DTYPES:
            for name in ("joint", "variable"):
                out = Path(folder) / f"{name}-{dtype}"
                export(load_golden(name), out, {"step": 3, "loss": {"lmbda": 0.01, "distortion": "mse"}}, dtype=dtype)
                found.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    return tuple(found)


def mutated_export(rng: np.random.Generator, files: dict[str, bytes]) -> dict[str, bytes]:
    """Mutate config.json, or the weights, with a right checksum unless bytes were damaged."""
    kind = rng.random()
    if kind < 0.4:
        return files | {CONFIG_FILE: mutated_json(rng, files[CONFIG_FILE])}
    if kind < 0.5:
        return files | {WEIGHTS_FILE: mutated_bytes(rng, files[WEIGHTS_FILE])}
    weights = _other_header(rng, files[WEIGHTS_FILE]) if kind < 0.75 else _other_numbers(rng, files[WEIGHTS_FILE])
    config = json.loads(files[CONFIG_FILE]) | {"sha256": hashlib.sha256(weights).hexdigest()}
    return files | {WEIGHTS_FILE: weights, CONFIG_FILE: json.dumps(config).encode()}


def _other_header(rng: np.random.Generator, data: bytes) -> bytes:
    """Mutate the header of safetensors."""
    (length,) = struct.unpack_from("<Q", data)
    header = mutated_json(rng, data[8 : 8 + length])
    stated = int(choose(rng, (len(header), len(header), len(header), 0, 2**40, 2**63, length)))
    return struct.pack("<Q", stated) + header + data[8 + length :]


def _other_numbers(rng: np.random.Generator, data: bytes) -> bytes:
    """Overwrite the numbers of one to three tensors, wholly or in part."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    result = np.frombuffer(data, np.uint8).copy()
    for _ in range(int(rng.integers(1, 4))):
        start, end = header[choose(rng, sorted(name for name in header if name != "__metadata__"))]["data_offsets"]
        size = int(choose(rng, (end - start, min(8, end - start))))
        at = 8 + length + start + 4 * int(rng.integers(max(1, (end - start - size) // 4 + 1)))
        nan = np.frombuffer(np.full(size // 4 + 1, np.nan, np.float32).tobytes(), np.uint8)[:size]
        result[at : at + size] = choose(
            rng, (nan, np.full(size, 255, np.uint8), np.zeros(size, np.uint8), rng.integers(0, 256, size, np.uint8),
                  result[at : at + size][::-1].copy(), np.full(size, 127, np.uint8))
        )  # fmt: skip
    return result.tobytes()
