"""Exports load without torch's reader to the same weights, or are refused in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from jahp_pl.config import BUILT_IN, PARTS
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import CONFIG_FILE, WEIGHTS_FILE, ExportError
from jahp_pl.runtime.load import load_runtime
from jahp_pl.runtime.weights import read_export
from tests.support.codec_models import JOINT, codec_of


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_stored_weights_are_those_of_torch(dtype: str, tmp_path: Path) -> None:
    codec = export(codec_of(JOINT).model, tmp_path / "m", {}, dtype=dtype)  # type: ignore[arg-type]
    state = read_export(tmp_path / "m").state
    for name, tensor in codec.model.state_dict().items():
        expected = tensor.numpy()
        if name == "g_cm.weight":
            expected = expected.reshape(*expected.shape[:2], -1)[:, :, :12]
        assert np.array_equal(state[name], expected), name
    assert load_runtime(tmp_path / "m").fingerprint == codec.fingerprint


@pytest.mark.parametrize(
    ("what", "said"),
    [("weight", "but was exported as"), ("missing", "does not fit config.json"), ("checksum", "altered or cut short")],
)
def test_an_export_that_is_not_whole_is_refused(what: str, said: str, tmp_path: Path) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    path, config = tmp_path / "m" / WEIGHTS_FILE, json.loads((tmp_path / "m" / CONFIG_FILE).read_text())
    tensors = safetensors.torch.load(path.read_bytes())
    if what == "weight":
        tensors["g_s.2.bias"][0] += 1
    else:
        del tensors["g_ep.2.bias"]
    path.write_bytes(safetensors.torch.save(tensors))
    if what != "checksum":
        config["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "m" / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ExportError, match=said):
        load_runtime(tmp_path / "m")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\x02" + bytes(7) + b"[]",
        b"\x03" + bytes(7) + b"{]}",
        *(
            len(header).to_bytes(8, "little") + header + bytes(16)
            for header in (
                b'{"x": 1}',
                b'{"x": {"dtype": "F32", "shape": [4]}}',
                b'{"x": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}',
                b'{"x": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}',
                b'{"x": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}',
                b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}',
                b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [-1000, -984]}}',
            )
        ),
    ],
)
def test_damaged_weights_are_refused_even_if_the_checksum_fits(data: bytes, tmp_path: Path) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    (tmp_path / "m" / WEIGHTS_FILE).write_bytes(data)
    config = json.loads((tmp_path / "m" / CONFIG_FILE).read_text())
    config["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "m" / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ExportError, match=r"model.safetensors: is damaged \(.*\); fetch it again"):
        load_runtime(tmp_path / "m")


@pytest.mark.parametrize("setting", BUILT_IN)
def test_parts_that_only_torch_has_are_refused_by_name(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    config = json.loads((tmp_path / "m" / CONFIG_FILE).read_text())
    config["model"][setting] = "own"
    data = safetensors.torch.save({"g_a.own": torch.ones(2)})
    (tmp_path / "m" / WEIGHTS_FILE).write_bytes(data)
    config["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "m" / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ExportError, match=f"model.{setting}"):
        load_runtime(tmp_path / "m")
    monkeypatch.setitem(PARTS, setting, [*PARTS[setting], "own"])  # as an import would
    said = f"m: model.{setting}=own: the onnx runtime has only .*; use the torch runtime"
    with pytest.raises(ExportError, match=said):
        load_runtime(tmp_path / "m")


def test_a_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(ExportError, match="reads exports only"):
        load_runtime(tmp_path / "last.ckpt")
