"""Exports: what goes in comes out to the last bit, and everything else is refused by name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from codec_models import ONE_OF_EACH, Variant, kodak_crop, load_golden

from jahp_pl import checkpoint
from jahp_pl.checkpoint import find_checkpoint
from jahp_pl.cli import main
from jahp_pl.codec.codec import Codec
from jahp_pl.export import CONFIG, WEIGHTS, ExportError, export, load_codec, load_export, training_facts
from jahp_pl.files import WriteError
from jahp_pl.model import CompressionModel

FACTS = {"step": 7, "lmbda": 0.013}


def model_of(variant: Variant) -> CompressionModel:
    """Untrained: what is kept does not depend on what was learned."""
    return CompressionModel(variant.config()).eval()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "golden"
    export(load_golden("joint"), folder, FACTS)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "model"))


def change(folder: Path, change_tensors=lambda tensors: None, **settings) -> None:
    """Alter an export as one who knows its layout would: the checksum is right again."""
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    change_tensors(tensors)
    data = safetensors.torch.save(tensors)
    (folder / WEIGHTS).write_bytes(data)
    config = json.loads((folder / CONFIG).read_text())
    config |= {"sha256": hashlib.sha256(data).hexdigest()} | settings
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_weights_tables_and_files_come_back_to_the_last_bit(variant, tmp_path):
    model = model_of(variant)
    codec = export(model, tmp_path / "m", FACTS)
    content = load_export(tmp_path / "m")
    assert content.facts == FACTS
    assert content.model.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(content.model.state_dict()[name], tensor), name
    loaded = load_codec(tmp_path / "m")
    assert loaded.fingerprint == codec.fingerprint == Codec(model).fingerprint == content.fingerprint
    image = kodak_crop()[:40, :56]
    assert loaded.compress(image) == Codec(model).compress(image)


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_the_tables_of_an_export_are_used_and_not_made_again(variant):
    """A table one step off, as another machine's exp may have it, gives another codec: the one that was exported."""
    model = model_of(variant)
    codec = Codec(model)
    for name, table in codec.tables().items():
        if name in ("prior.lowest", "prior.sizes"):
            continue
        tables = codec.tables() | {name: table.clone()}
        tables[name][len(table) // 2] += 2.0**-16 if name == "latents.scales" else 1
        changed = Codec(model, tables)
        assert torch.equal(changed.tables()[name], tables[name])
        assert changed.fingerprint != codec.fingerprint


def test_two_exports_of_one_model_are_the_same_bytes(original, tmp_path):
    export(load_golden("joint"), tmp_path / "again", FACTS)
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (original / name).read_bytes()


def test_an_altered_or_shortened_file_is_refused(folder):
    data = (folder / WEIGHTS).read_bytes()
    for altered in (data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], data[:-1], b"", data + b"x"):
        (folder / WEIGHTS).write_bytes(altered)
        with pytest.raises(ExportError, match=r"model\.safetensors: is not the file"):
            load_codec(folder)


def test_a_missing_file_is_named(folder):
    (folder / WEIGHTS).rename(folder / "elsewhere")
    with pytest.raises(ExportError, match=r"model\.safetensors: is missing"):
        load_codec(folder)
    (folder / "elsewhere").rename(folder / WEIGHTS)
    (folder / CONFIG).unlink()
    with pytest.raises(ExportError, match=r"config\.json: is missing"):
        load_codec(folder)


BAD_TENSORS = {
    "missing": (lambda t: t.pop("g_cm.bias"), r"g_cm\.bias is missing"),
    "unknown": (lambda t: t.update(extra=torch.zeros(2)), "extra is unknown"),
    "misshapen": (lambda t: t.update({"g_cm.bias": torch.zeros(5)}), r"g_cm\.bias has shape \(5,\) instead of"),
    "other type": (lambda t: t.update({"g_cm.bias": t["g_cm.bias"].half()}), r"g_cm\.bias is torch\.float16"),
    "altered weight": (lambda t: t["g_s.0.weight"].view(-1)[0].add_(1), "freezes to model"),
    "not finite": (lambda t: t["g_cm.bias"].fill_(torch.nan), "not finite"),
    "missing table": (lambda t: t.pop("tables.prior.masses"), "table masses: missing"),
    "unknown table": (lambda t: t.update({"tables.latents.medians": torch.zeros(3)}), "medians is unknown"),
    "misshapen table": (lambda t: t.update({"tables.latents.scales": torch.ones(3).double()}), "table scales: missing"),
    "falling table": (lambda t: t["tables.latents.scales"].neg_(), "numbers that no frozen model has"),
    "altered table": (lambda t: t["tables.latents.thresholds"][3].add_(1), "freezes to model"),
    "negative mass": (lambda t: t["tables.prior.masses"].sub_(1e9), "numbers that no frozen model has"),
    "no mass": (lambda t: t["tables.prior.masses"].zero_(), "without mass"),
    "wrong sizes": (lambda t: t["tables.prior.sizes"].fill_(1), "not those of a density"),
}


@pytest.mark.parametrize(("alter", "words"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_tensor_that_does_not_belong_is_named(alter, words, folder):
    change(folder, alter)
    with pytest.raises(ExportError, match=words) as caught:
        load_codec(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_CONFIGS = {
    "newer": ({"jahp_pl_export": 2}, "format 2 is newer"),
    "foreign": ({"jahp_pl_export": None}, "not the config.json of an export"),
    "unknown setting": ({"model": {"depth": 3}}, r"model\.depth"),
    "other width": ({"model": {"rung": "joint", "num_filters": 9, "num_latents": 12}}, "has shape"),
    "immense": ({"model": {"rung": "joint", "num_filters": 10**6, "num_latents": 10**6}}, "has shape"),
    "no fingerprint": ({"fingerprint": "xyz"}, "cannot be read"),
}


@pytest.mark.parametrize(("settings", "words"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_config_that_does_not_fit_is_refused(settings, words, folder):
    change(folder, **settings)
    with pytest.raises(ExportError, match=words):
        load_codec(folder)


def test_a_config_that_is_no_json_is_refused(folder):
    for text in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        (folder / CONFIG).write_bytes(text)
        with pytest.raises(ExportError, match=r"config\.json"):
            load_codec(folder)


def test_what_is_there_is_replaced_only_on_demand_and_only_an_export(folder, tmp_path):
    model = load_golden("joint")
    with pytest.raises(ExportError, match="--force"):
        export(model, folder, {})
    assert load_export(folder).facts == FACTS
    export(model, folder, {}, overwrite=True)
    assert load_export(folder).facts == {}
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="choose another name"):
        export(model, folder, {}, overwrite=True)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ExportError, match="choose another name"):
        export(model, tmp_path / "file", {}, overwrite=True)


def test_weights_of_an_absurd_size_are_refused_unread(folder):
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(2**40)  # without taking any space
    with pytest.raises(ExportError, match=rf"{WEIGHTS}: takes 1099511627776 bytes, more than the 1073741824"):
        load_export(folder)


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("at", [0, 1], ids=["weights", "config"])
def test_a_full_disk_or_an_interrupt_leaves_the_old_export_or_none(stop, at, folder, tmp_path, monkeypatch):
    calls = iter(range(9))

    def fail(_: int) -> None:
        if next(calls) == at:
            raise stop

    for target in (folder, tmp_path / "new"):
        calls = iter(range(9))
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises((WriteError, KeyboardInterrupt)):
            export(load_golden("joint"), target, {}, overwrite=True)
    monkeypatch.undo()
    assert load_export(folder).facts == FACTS
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.fixture
def run_folder(tmp_path):
    """What a training leaves, as far as a model is concerned."""
    model = load_golden("joint")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    settings = {
        "name": "secret", "seed": 3, "loss": {"lmbda": 0.02}, "data": {"train": ["/home/me"], "crop_size": 256},
        "model": {"rung": "joint", "num_filters": 8, "num_latents": 12},
    }  # fmt: skip
    content = {checkpoint.FORMAT_KEY: checkpoint.FORMAT, checkpoint.HYPER_PARAMETERS: settings, "global_step": 11}
    content["state_dict"] = {f"{checkpoint.MODEL}{name}": value for name, value in model.state_dict().items()}
    torch.save(content, path)
    return tmp_path / "run"


def test_run_folder_checkpoint_and_export_make_the_same_codec(run_folder, folder):
    codecs = [load_codec(path) for path in (run_folder, find_checkpoint(run_folder), folder)]
    assert len({codec.fingerprint for codec in codecs}) == 1


def test_the_command_exports_a_run_with_its_facts_but_no_paths(run_folder, tmp_path, capsys):
    main(["export", str(run_folder), "--out", str(tmp_path / "out")])
    content = load_export(tmp_path / "out")
    assert content.facts == {"source": "best.ckpt", **training_facts(find_checkpoint(run_folder))}
    assert content.facts["step"] == 11
    assert content.facts["loss"] == {"lmbda": 0.02}
    assert "/home/me" not in (tmp_path / "out" / CONFIG).read_text()
    assert content.fingerprint.hex() in capsys.readouterr().out
    main(["info", str(tmp_path)])
    told = capsys.readouterr().out
    assert told.count(content.fingerprint.hex()) == 2  # the run and its export
    with pytest.raises(SystemExit) as caught:
        main(["export", str(run_folder), "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert "--force" in capsys.readouterr().err
