"""Exports round-trip to the last bit, anything else is refused by name, and every kind of source loads."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from jahp_pl.cli.main import main
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.freezing import FreezeError
from jahp_pl.config import ModelConfig
from jahp_pl.errors import WriteError
from jahp_pl.initialization.warm_start import initialize
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import checkpoint
from jahp_pl.model_io.checkpoint import find_checkpoint, training_facts
from jahp_pl.model_io.compensated_rounding import round_kernels
from jahp_pl.model_io.export import export, export_from, load_export
from jahp_pl.model_io.export_config import CARD, CONFIG, WEIGHTS, ExportError
from jahp_pl.model_io.load import load_codec, load_model
from jahp_pl.model_io.tensor_layout import DTYPES, EXPORT_FORMAT
from jahp_pl.model_io.tensors import restore, store
from jahp_pl.runtime.load import load_runtime
from tests.support.codec_models import GOLDEN, ONE_OF_EACH, Variant, kodak_crop, load_golden

FACTS = {"step": 7, "lmbda": 0.013}


def model_of(variant: Variant) -> CompressionModel:
    """Create an untrained model, because storage does not depend on training."""
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
    """Alter an export and correct its checksum."""
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    change_tensors(tensors)
    data = safetensors.torch.save(tensors)
    (folder / WEIGHTS).write_bytes(data)
    config = json.loads((folder / CONFIG).read_text())
    config |= {"sha256": hashlib.sha256(data).hexdigest()} | settings
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_weights_tables_and_files_are_restored_to_the_last_bit(variant, tmp_path):
    model = model_of(variant)
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


def test_no_weights_are_drawn_before_those_of_an_export_or_a_checkpoint_are_read(folder, run_folder):
    before = torch.get_rng_state()
    for source in (folder, run_folder):
        load_model(source)
        assert torch.equal(torch.get_rng_state(), before)


def test_two_exports_of_one_model_are_the_same_bytes(original, tmp_path):
    export(load_golden("joint"), tmp_path / "again", FACTS)
    for name in (CONFIG, WEIGHTS):  # the card has the folder's name
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
    sizes = [(folder / WEIGHTS).stat().st_size for folder in (tmp_path / "half", original)]
    tables = sum(4 * table.numel() for table in codec.tables().values())
    assert sizes[0] - tables < share * (sizes[1] - tables)
    again = export(load_model(tmp_path / "half"), tmp_path / "again", FACTS, dtype=dtype)
    assert again.fingerprint == codec.fingerprint, "rounding what is rounded changes nothing"


def test_non_finite_weights_are_refused_in_every_type(tmp_path):
    model = load_golden("joint")
    with torch.no_grad():
        model.h_s[0].weight[0, 0, 0, 0] = torch.nan
    for dtype in DTYPES:
        with pytest.raises(FreezeError, match=r"h_s\.0.*not finite"):
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
    tensors = safetensors.torch.load_file(original / WEIGHTS)
    kernel, live = load_golden("joint").g_cm.weight, tensors["g_cm.weight"]
    assert live.shape == (24, 12, 12)
    assert torch.equal(live, kernel.flatten(2)[:, :, :12])


RESULTS = {
    "images": "Kodak", "count": 24, "bpp": 0.25, "psnr": 30.5, "ms_ssim": 0.95, "ms_ssim_db": 13.01, "date": None,
}  # fmt: skip


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
    (folder / WEIGHTS).write_bytes(data)
    (folder / CONFIG).write_text(json.dumps(config))


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
    tables = {k: v for k, v in safetensors.torch.load_file(folder / WEIGHTS).items() if k.startswith("tables.")}
    tensors = store(model.state_dict(), "int8", version)
    former = load_golden("joint")
    former.load_state_dict(restore(tensors, former.state_dict(), "int8", version))
    codec, data = Codec(former), safetensors.torch.save(tensors | tables)
    config = json.loads((folder / CONFIG).read_text()) | {"jahp_pl_export": version, "results": RESULTS}
    config |= {"sha256": hashlib.sha256(data).hexdigest(), "fingerprint": codec.fingerprint.hex()}
    (folder / WEIGHTS).write_bytes(data)
    (folder / CONFIG).write_text(json.dumps(config))
    assert load_runtime(folder).fingerprint == load_codec(folder).fingerprint == codec.fingerprint
    assert load_codec(folder).compress(kodak_crop()[:72, :90]) == codec.compress(kodak_crop()[:72, :90])
    export_from(folder, tmp_path / "again")
    assert load_export(folder).results == RESULTS
    assert load_export(tmp_path / "again").results is None, "those are of weights that were not rounded"


@pytest.fixture
def results(original, tmp_path):
    """Write the part of the results of `jahp evaluate` that an export reads."""
    mean = {"file_bpp": 0.25, "file_psnr": 30.5, "file_ms_ssim": 0.95, "file_ms_ssim_db": 13.01}
    images = [{"name": f"kodim{number:02}.png"} for number in range(1, 25)]
    content = {"mean": mean, "images": images, "provenance": {"fingerprint": load_codec(original).fingerprint.hex()}}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    return path


def test_the_card_of_a_model_that_started_from_another_says_so(original, tmp_path):
    facts = FACTS | {"step": 50, "optim": {"start_from": "first"}, "note": "Ten hours in all."}
    export(load_golden("joint"), tmp_path / "m", facts)
    training = (tmp_path / "m" / CARD).read_text().split("## Training\n\n")[1]
    assert training.startswith(
        "Ten hours in all.\n\nThe last run, which started from the weights of `first`:\n\n| | |\n"
    )
    assert "| steps | 50 |" in training
    assert "The last run" not in (original / CARD).read_text()


def test_results_of_the_model_go_into_config_and_card(results, original, folder, tmp_path):
    export_from(original, tmp_path / "rated", results=results)
    stored = load_export(tmp_path / "rated").results
    assert stored == RESULTS
    assert "| Kodak (24 images) | 0.2500 | 30.50 dB | 0.9500 |" in (tmp_path / "rated" / CARD).read_text()
    export_from(tmp_path / "rated", tmp_path / "rated", overwrite=True)
    assert load_export(tmp_path / "rated").results == stored, "kept with the model"
    export_from(tmp_path / "rated", tmp_path / "half", dtype="bfloat16")
    assert load_export(tmp_path / "half").results is None, "of other weights"
    with pytest.raises(ExportError, match=r"r\.json: has results of model \w{16}, but this model is"):
        export_from(tmp_path / "half", tmp_path / "wrong", results=results)
    assert not (tmp_path / "wrong").exists()


def test_results_that_cannot_be_read_are_named(original, tmp_path):
    mean, own = {"file_bpp": 0.3, "file_psnr": None, "file_ms_ssim": None}, load_codec(original).fingerprint.hex()
    unmeasured = json.dumps({"mean": mean, "images": [{"name": "a.png"}], "provenance": {"fingerprint": own}})
    for text in ("", "[]", "{}", '{"mean": 3, "provenance": {"fingerprint": "00"}}', unmeasured, "[" * 100_000):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ExportError, match=r"r\.json: has no results of `jahp evaluate`"):
            export_from(original, tmp_path / "rated", results=tmp_path / "r.json")
    with pytest.raises(ExportError, match=r"nowhere\.json: cannot be read"):
        export_from(original, tmp_path / "rated", results=tmp_path / "nowhere.json")


def test_the_card_says_what_the_model_is_and_how_to_use_it(run_folder, tmp_path):
    codec = export_from(run_folder, tmp_path / "mine")
    card = (tmp_path / "mine" / CARD).read_text()
    for words in (
        "# mine\n",
        "N = 8, M = 12",
        "| lambda | 0.02 |",
        "| steps | 11 |",
        "jahp compress photo.png --model mine",
    ):
        assert words in card
    assert codec.fingerprint.hex() in card
    assert "/home/me" not in card


def test_an_altered_or_shortened_file_is_refused(folder):
    data = (folder / WEIGHTS).read_bytes()
    for altered in (data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], data[:-1], b"", data + b"x"):
        (folder / WEIGHTS).write_bytes(altered)
        with pytest.raises(ExportError, match=r"model\.safetensors: does not match the checksum"):
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
        (folder / CONFIG).write_bytes(text)
        with pytest.raises(ExportError, match=r"config\.json"):
            load(folder)


def test_only_an_export_is_replaced_and_only_with_force(folder, tmp_path):
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
    with pytest.raises(ExportError, match=rf"{WEIGHTS}: has 1099511627776 bytes, more than the maximum of 1073741824"):
        load_export(folder)


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


@pytest.fixture
def run_folder(tmp_path):
    """Create a run folder with the files that an export reads."""
    model = load_golden("joint")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    settings = {
        "name": "secret", "seed": 3, "loss": {"lmbda": 0.02}, "data": {"train": ["/home/me"], "crop_size": 256},
        "optim": {"start_from": "/home/me/runs/former"},
        "model": {"entropy_model": "joint", "num_filters": 8, "num_latents": 12},
    }  # fmt: skip
    content = {
        checkpoint.CHECKPOINT_FORMAT_KEY: checkpoint.CHECKPOINT_FORMAT,
        checkpoint.HYPER_PARAMETERS: settings,
        "global_step": 11,
    }
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
    assert content.results is None
    assert content.facts["optim"] == {"start_from": "former"}
    assert "/home/me" not in (tmp_path / "out" / CONFIG).read_text()
    assert content.fingerprint.hex() in capsys.readouterr().out
    main(["info", str(tmp_path)])
    output = capsys.readouterr().out
    assert output.count(content.fingerprint.hex()) == 2  # the run and its export
    with pytest.raises(SystemExit) as caught:
        main(["export", str(run_folder), "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert "--force" in capsys.readouterr().err


def test_non_finite_weights_are_refused(folder):
    change(folder, lambda tensors: tensors.update({"g_s.0.bias": tensors["g_s.0.bias"] * float("nan")}))
    with pytest.raises(ExportError, match=r"g_s\.0\.bias is not finite"):
        load_model(folder)


def test_falling_cumulative_tables_are_refused(folder):
    name = "tables.latents.cumulative"
    change(folder, lambda tensors: tensors.update({name: tensors[name].flip(0).contiguous()}))
    with pytest.raises(ExportError, match="cumulative: does not rise"):
        load_codec(folder)
