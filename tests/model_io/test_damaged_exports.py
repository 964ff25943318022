"""Exports that are altered, incomplete or damaged are refused, and the message names the reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from jahp_pl.model_io.export import load_export
from jahp_pl.model_io.export_config import CONFIG_FILE, WEIGHTS_FILE, ExportError
from jahp_pl.model_io.load import load_codec, load_model
from jahp_pl.model_io.tensor_layout import EXPORT_FORMAT
from jahp_pl.runtime.load import load_runtime


def change(folder: Path, change_tensors=lambda tensors: None, **settings) -> None:
    """Alter an export and correct its checksum."""
    tensors = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    change_tensors(tensors)
    data = safetensors.torch.save(tensors)
    (folder / WEIGHTS_FILE).write_bytes(data)
    config = json.loads((folder / CONFIG_FILE).read_text())
    config |= {"sha256": hashlib.sha256(data).hexdigest()} | settings
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def test_an_altered_or_shortened_file_is_refused(folder):
    data = (folder / WEIGHTS_FILE).read_bytes()
    for altered in (data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], data[:-1], b"", data + b"x"):
        (folder / WEIGHTS_FILE).write_bytes(altered)
        with pytest.raises(ExportError, match=r"model\.safetensors: does not match the checksum"):
            load_codec(folder)


def test_a_missing_file_is_named(folder):
    (folder / WEIGHTS_FILE).rename(folder / "elsewhere")
    with pytest.raises(ExportError, match=r"model\.safetensors: is missing"):
        load_codec(folder)
    (folder / "elsewhere").rename(folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(ExportError, match=r"config\.json: is missing"):
        load_codec(folder)


BAD_TENSORS = {
    "missing": (lambda t: t.pop("g_cm.bias"), r"g_cm\.bias is missing"),
    "unknown": (lambda t: t.update(extra=torch.zeros(2)), "extra is unknown"),
    "misshapen": (lambda t: t.update({"g_cm.bias": torch.zeros(5)}), r"g_cm\.bias has shape \(5,\) instead of"),
    "all taps": (
        lambda t: t.update({"g_cm.weight": torch.zeros(24, 12, 5, 5)}),
        r"g_cm\.weight has shape \(24, 12, 5, 5\)",
    ),
    "half a kernel": (
        lambda t: t.update({"g_s.0.weight": t["g_s.0.weight"].bfloat16()}),
        r"g_s\.0\.weight is bfloat16, not float32",
    ),
    "other type": (lambda t: t.update({"g_cm.bias": t["g_cm.bias"].half()}), r"g_cm\.bias is float16"),
    "altered weight": (lambda t: t["g_s.0.weight"].view(-1)[0].add_(1), "has fingerprint"),
    "not finite": (lambda t: t["g_cm.bias"].fill_(torch.nan), "not finite"),
    "missing table": (lambda t: t.pop("tables.prior.masses"), "table masses: is missing"),
    "unknown table": (lambda t: t.update({"tables.latents.medians": torch.zeros(3)}), "medians is unknown"),
    "misshapen table": (lambda t: t.update({"tables.latents.scales": torch.ones(3).double()}), "scales: is missing"),
    "falling table": (lambda t: t["tables.latents.scales"].neg_(), "numbers that are negative or not finite"),
    "altered table": (lambda t: t["tables.latents.thresholds"][3].add_(1), "has fingerprint"),
    "negative mass": (lambda t: t["tables.prior.masses"].sub_(10**9), "numbers that are negative or not finite"),
    "no mass": (lambda t: t["tables.prior.masses"].zero_(), "has no mass"),
    "wrong sizes": (lambda t: t["tables.prior.sizes"].fill_(1), "sizes or first symbols are invalid"),
}


BOTH_RUNTIMES = pytest.mark.parametrize("load", [load_codec, load_runtime], ids=["torch", "onnx"])


@BOTH_RUNTIMES
@pytest.mark.parametrize(("alter", "words"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_tensor_that_does_not_belong_is_named(alter, words, load, folder):
    change(folder, alter)
    with pytest.raises(ExportError, match=words) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_CONFIGS = {
    "newer": ({"jahp_pl_export": EXPORT_FORMAT + 1}, f"format {EXPORT_FORMAT + 1} is newer"),
    "other type": ({"dtype": "bfloat16"}, r"g_a\.1\.gamma is float32, not bfloat16"),
    "unknown type": ({"dtype": "float8"}, "dtype 'float8' is not one of float32, bfloat16, int8"),
    "foreign": ({"jahp_pl_export": None}, "does not belong to a jahp_pl export"),
    "before the first": ({"jahp_pl_export": 0}, "does not belong to a jahp_pl export"),
    "a truth value": ({"jahp_pl_export": True}, "does not belong to a jahp_pl export"),
    "no architecture": ({"model": [1]}, "damaged: model is"),
    "a checksum as a number": ({"sha256": 5}, "damaged: sha256 is"),
    "unknown setting": ({"model": {"depth": 3}}, r"model\.depth"),
    "other width": ({"model": {"entropy_model": "joint", "num_filters": 9, "num_latents": 12}}, "has shape"),
    "immense": ({"model": {"entropy_model": "joint", "num_filters": 4096, "num_latents": 4096}}, "has shape"),
    "absurd": (
        {"model": {"entropy_model": "joint", "num_filters": 10**6}},
        "num_filters=1000000: must be from 1 to 4096",
    ),
    "no fingerprint": ({"fingerprint": "xyz"}, "cannot be read"),
    "results without a count": (
        {"results": {"images": "Kodak", "bpp": 1.0, "psnr": 30.0, "ms_ssim": None}},
        "results.count",
    ),
    "results as text": ({"results": "good"}, "damaged: results is"),
    "facts as a list": ({"facts": []}, "damaged: facts is"),
    "a number without end": ({"facts": {"seconds": 10**400}}, "damaged: facts.seconds is"),
    "lambda as text": ({"facts": {"loss": {"lmbda": "x"}}}, "damaged: facts.loss.lmbda is"),
}


@BOTH_RUNTIMES
@pytest.mark.parametrize(("settings", "words"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_config_that_does_not_fit_is_refused(settings, words, load, folder):
    change(folder, **settings)
    with pytest.raises(ExportError, match=words):
        load(folder)


@BOTH_RUNTIMES
def test_a_config_that_is_not_json_is_refused(load, folder):
    for text in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        (folder / CONFIG_FILE).write_bytes(text)
        with pytest.raises(ExportError, match=r"config\.json"):
            load(folder)


def test_weights_of_an_absurd_size_are_refused_unread(folder):
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.truncate(2**40)  # without taking any space
    with pytest.raises(
        ExportError, match=rf"{WEIGHTS_FILE}: has 1099511627776 bytes, more than the maximum of 1073741824"
    ):
        load_export(folder)


def test_non_finite_weights_are_refused(folder):
    change(folder, lambda tensors: tensors.update({"g_s.0.bias": tensors["g_s.0.bias"] * float("nan")}))
    with pytest.raises(ExportError, match=r"g_s\.0\.bias is not finite"):
        load_model(folder)


def test_falling_cumulative_tables_are_refused(folder):
    name = "tables.latents.cumulative"
    change(folder, lambda tensors: tensors.update({name: tensors[name].flip(0).contiguous()}))
    with pytest.raises(ExportError, match="cumulative: does not rise"):
        load_codec(folder)
