"""Exports of former formats are read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from jahp_pl.codec.codec import Codec
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.export import export, export_from, load_export
from jahp_pl.model_io.export_config import CONFIG_FILE, WEIGHTS_FILE
from jahp_pl.model_io.load import load_codec
from jahp_pl.model_io.tensors import restore, store
from jahp_pl.runtime.load import load_runtime
from tests.support.codec_models import GOLDEN, kodak_crop, load_golden
from tests.support.exports import FACTS, RESULTS


def as_first_format(folder: Path, model: CompressionModel) -> None:
    """Rewrite an export as jahp_pl 0.1.0 did: all taps, float64 tables, cumulatives on both sides of 0, no card."""
    codec = Codec(model)
    tables = codec.tables() | {"latents.cumulative": torch.from_numpy(codec.latents.tables.cumulative)}
    tensors = model.state_dict() | {f"tables.{name}": table for name, table in tables.items()}
    data = safetensors.torch.save({name: tensor.clone() for name, tensor in tensors.items()})
    config = {
        "jahp_pl_export": 1, "model": dataclasses.asdict(model.config), "fingerprint": codec.fingerprint.hex(),
        "sha256": hashlib.sha256(data).hexdigest(), "facts": FACTS,
    }  # fmt: skip
    folder.mkdir()
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / CONFIG_FILE).write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["joint", "mixture"])
def test_exports_of_the_first_format_are_read(name, tmp_path):
    model = load_golden(name)
    as_first_format(tmp_path / "old", model)
    old, data = load_codec(tmp_path / "old"), (GOLDEN / f"{name}.jahp").read_bytes()
    assert old.fingerprint == Codec(model).fingerprint
    assert torch.equal(old.decompress(data), Codec(model).decompress(data))
    assert export_from(tmp_path / "old", tmp_path / "new").fingerprint == old.fingerprint
    assert load_export(tmp_path / "new").facts == FACTS


@pytest.mark.parametrize("version", [2, 3])
def test_int8_exports_of_former_formats_are_read(version, tmp_path):
    model, folder = load_golden("joint"), tmp_path / "m"
    export(model, folder, FACTS, dtype="int8")
    tables = {k: v for k, v in safetensors.torch.load_file(folder / WEIGHTS_FILE).items() if k.startswith("tables.")}
    tensors = store(model.state_dict(), "int8", version)
    former = load_golden("joint")
    former.load_state_dict(restore(tensors, former.state_dict(), "int8", version))
    codec, data = Codec(former), safetensors.torch.save(tensors | tables)
    config = json.loads((folder / CONFIG_FILE).read_text()) | {"jahp_pl_export": version, "results": RESULTS}
    config |= {"sha256": hashlib.sha256(data).hexdigest(), "fingerprint": codec.fingerprint.hex()}
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    assert load_runtime(folder).fingerprint == load_codec(folder).fingerprint == codec.fingerprint
    assert load_codec(folder).compress(kodak_crop()[:72, :90]) == codec.compress(kodak_crop()[:72, :90])
    export_from(folder, tmp_path / "again")
    assert load_export(folder).results == RESULTS
    assert load_export(tmp_path / "again").results is None, "those are of weights that were not rounded"
