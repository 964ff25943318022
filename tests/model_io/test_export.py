"""Exports restore models to the last bit, are written completely or not at all, and every kind of source loads."""

from __future__ import annotations

import errno
import os

import pytest
import safetensors.torch
import torch

from jahp_pl.cli.main import main
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.config import ModelConfig
from jahp_pl.errors import WriteError
from jahp_pl.initialization.warm_start import initialize
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import find_checkpoint, training_facts
from jahp_pl.model_io.compensated_rounding import round_kernels
from jahp_pl.model_io.export import export, load_export
from jahp_pl.model_io.export_config import CONFIG_FILE, WEIGHTS_FILE, ExportError
from jahp_pl.model_io.load import load_codec, load_model
from jahp_pl.model_io.tensor_layout import DTYPES
from jahp_pl.model_io.tensors import restore, store
from tests.support.codec_models import ONE_OF_EACH, Variant, kodak_crop, load_golden, variable_codec, variable_model
from tests.support.exports import FACTS


def untrained(variant: Variant) -> CompressionModel:
    """Create an untrained model, because storage does not depend on training."""
    return CompressionModel(variant.config()).eval()


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_weights_tables_and_files_are_restored_to_the_last_bit(variant, tmp_path):
    model = untrained(variant)
    codec = export(model, tmp_path / "m", FACTS)
    content = load_export(tmp_path / "m")
    assert content.facts == FACTS
    assert content.model.config == model.config
    for name, tensor in model.state_dict().items():
        live = model.g_cm.mask if name == "g_cm.weight" else 1  # what is masked comes back as 0
        assert torch.equal(content.model.state_dict()[name], tensor * live), name
    loaded = load_codec(tmp_path / "m")
    assert loaded.fingerprint == codec.fingerprint == Codec(model).fingerprint == content.fingerprint
    image = kodak_crop()[:40, :56]
    assert loaded.compress(image) == Codec(model).compress(image)


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_the_tables_of_an_export_are_used_instead_of_computed(variant):
    """If a table is one step off, as another machine's exp may compute it, the codec uses the exported table."""
    model = untrained(variant)
    codec = Codec(model)
    for name, table in codec.tables().items():
        if name in ("prior.lowest", "prior.sizes"):
            continue
        tables = codec.tables() | {name: table.clone()}
        tables[name][len(table) // 2] += 2.0**-16 if name == "latents.scales" else 1
        changed = Codec(model, tables)
        assert torch.equal(changed.tables()[name], tables[name])
        assert changed.fingerprint != codec.fingerprint


def test_no_weights_are_drawn_before_those_of_an_export_or_a_checkpoint_are_read(folder, run_folder):
    before = torch.get_rng_state()
    for source in (folder, run_folder):
        load_model(source)
        assert torch.equal(torch.get_rng_state(), before)


def test_two_exports_of_one_model_are_the_same_bytes(original, tmp_path):
    export(load_golden("joint"), tmp_path / "again", FACTS)
    for name in (CONFIG_FILE, WEIGHTS_FILE):  # the card has the folder's name
        assert (tmp_path / "again" / name).read_bytes() == (original / name).read_bytes()


@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 0.65), ("int8", 0.5)])
def test_a_smaller_export_is_a_codec_of_the_rounded_weights(dtype, share, original, tmp_path):
    """The returned codec and the reloaded export agree in fingerprint, files and facts."""
    model, image = load_golden("joint"), kodak_crop()[:72, :90]
    codec = export(model, tmp_path / "half", FACTS, dtype=dtype)
    reloaded = load_codec(tmp_path / "half")
    assert codec.fingerprint == reloaded.fingerprint != Codec(model).fingerprint
    data = codec.compress(image)
    assert reloaded.compress(image) == data
    assert torch.equal(reloaded.decompress(data), codec.decompress(data))
    for name, tensor in load_model(tmp_path / "half").state_dict().items():
        assert tensor.dtype == torch.float32
        if name.endswith("bias") or name.startswith("prior"):
            assert torch.equal(tensor, model.state_dict()[name]), "few, hence not rounded"
    sizes = [(folder / WEIGHTS_FILE).stat().st_size for folder in (tmp_path / "half", original)]
    tables = sum(4 * table.numel() for table in codec.tables().values())
    assert sizes[0] - tables < share * (sizes[1] - tables)
    again = export(load_model(tmp_path / "half"), tmp_path / "again", FACTS, dtype=dtype)
    assert again.fingerprint == codec.fingerprint, "rounding what is rounded changes nothing"


def test_non_finite_weights_are_refused_in_every_type(tmp_path):
    model = load_golden("joint")
    with torch.no_grad():
        model.h_s[0].weight[0, 0, 0, 0] = torch.nan
    for dtype in DTYPES:
        with pytest.raises(UnusableModelError, match=r"h_s\.0.*not finite"):
            export(model, tmp_path / "m", {}, dtype=dtype)


def test_integers_are_as_near_as_eight_bits_allow(tmp_path):
    weights = torch.randn(6, 5, 3, 3) * torch.logspace(-30, 30, 6)[:, None, None, None]
    weights[2] = 0
    state = {"h_s.0.weight": weights}
    back = restore(store(state, "int8"), state, "int8")["h_s.0.weight"]
    largest = weights.abs().amax(1, keepdim=True)
    assert ((back - weights).abs() <= largest / 126).all()
    assert (back[2] == 0).all()


def test_errors_of_the_analysis_transform_cancel(photos):
    model = CompressionModel(ModelConfig(num_filters=24, num_latents=32)).eval()
    initialize(model)
    state = model.state_dict()
    rounded = {name: kernel for name, kernel in round_kernels(model).items() if name.startswith("g_a.")}
    assert sorted(rounded) == ["g_a.2.weight", "g_a.4.weight", "g_a.6.weight"]
    kept = restore(store(state | rounded, "int8"), state, "int8")
    assert all(torch.equal(kept[name], kernel) for name, kernel in rounded.items()), "storing them changes nothing"
    nearest = restore(store(state, "int8"), state, "int8")

    def error(weights: dict[str, torch.Tensor]) -> float:
        """Mean squared error of y."""
        other = CompressionModel(model.config).eval()
        other.load_state_dict(state | {name: weights[name] for name in rounded})
        with torch.no_grad():
            return float((other.analyze(photos) - model.analyze(photos)).square().mean())

    assert error(rounded) < 0.3 * error(nearest)


def test_masked_taps_are_not_stored(original):
    tensors = safetensors.torch.load_file(original / WEIGHTS_FILE)
    kernel, live = load_golden("joint").g_cm.weight, tensors["g_cm.weight"]
    assert live.shape == (24, 12, 12)
    assert torch.equal(live, kernel.flatten(2)[:, :, :12])


def test_only_an_export_is_replaced_and_only_with_force(folder, tmp_path):
    model = load_golden("joint")
    with pytest.raises(ExportError, match="--force"):
        export(model, folder, {})
    assert load_export(folder).facts == FACTS
    export(model, folder, {}, overwrite=True)
    assert load_export(folder).facts == {}
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"holds notes\.txt, which does not belong to an export; choose another name"):
        export(model, folder, {}, overwrite=True)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ExportError, match="loop: is a link to itself; choose another name"):
        export(model, tmp_path / "loop", {})
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ExportError, match="file: is a file; choose another name"):
        export(model, tmp_path / "file", {}, overwrite=True)


def test_a_name_and_a_note_may_be_in_any_encoding(tmp_path):
    name, note = os.fsdecode(b"caf\xe9"), "note \ud800"
    export(untrained(Variant("factorized")), tmp_path / name, {"note": note, "step": 1})
    assert load_export(tmp_path / name).facts["note"] == note
    card = (tmp_path / name / "README.md").read_text()
    assert r"caf\udce9" in card
    assert r"note \ud800" in card


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("at", [0, 1, 2], ids=["weights", "card", "config"])
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


def test_run_folder_checkpoint_and_export_make_the_same_codec(run_folder, folder):
    codecs = [load_codec(path) for path in (run_folder, find_checkpoint(run_folder), folder)]
    assert len({codec.fingerprint for codec in codecs}) == 1


def test_the_command_exports_a_run_with_its_facts_but_no_paths(run_folder, tmp_path, capsys):
    main(["export", str(run_folder), "--out", str(tmp_path / "out")])
    content = load_export(tmp_path / "out")
    assert content.facts == {"source": "best.ckpt", **training_facts(find_checkpoint(run_folder))}
    assert content.facts["step"] == 11
    assert content.facts["loss"] == {"lmbda": 0.02}
    assert content.results is None
    assert content.facts["optim"] == {"start_from": "former"}
    assert "/home/me" not in (tmp_path / "out" / CONFIG_FILE).read_text()
    assert content.fingerprint.hex() in capsys.readouterr().out
    main(["info", str(tmp_path)])
    output = capsys.readouterr().out
    assert output.count(content.fingerprint.hex()) == 2  # the run and its export
    with pytest.raises(SystemExit) as caught:
        main(["export", str(run_folder), "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert "--force" in capsys.readouterr().err


def test_an_export_keeps_the_gains_to_the_last_bit(tmp_path):
    export(variable_model(), tmp_path / "m", {}, dtype="int8")
    gains = load_codec(tmp_path / "m").model.gains
    assert gains is not None
    assert torch.equal(gains.gain, variable_codec().model.gains.gain)
