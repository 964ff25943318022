"""Runs store the right data for Weights & Biases, as read from the file that `wandb sync` would send, and training
continues without W&B.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from jahp_pl.model_io.load import load_codec
from jahp_pl.settings import load_config
from jahp_pl.training.run import TrainResult, train
from jahp_pl.training.wandb_run import NUM_BINS, _wandb_id, artifact_name, finish_wandb, log_export, wandb_logger
from tests.support.launching import JAHP, output_of, script, settings_of
from tests.support.tiny_runs import NOTHING_CODED, tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> TrainResult:
    settings = (
        "name=lr=1e-4",
        "wandb.mode=offline",
        "wandb.log_model=true",
        "wandb.group=ladder",
        "trainer.max_steps=4",
    )
    return train(tiny_config(tmp_path_factory.mktemp("runs"), shards, *settings))


def records(run_dir: Path) -> Iterator[Record]:
    """Read the run's only file: protobuf records in a LevelDB log, which is a 7-byte header, then blocks of 32 KiB."""
    (path,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def logged(run_dir: Path, name: str) -> list[dict[str, Any]]:
    """Return the entries nested below `name`, for each row of the history that has any."""
    rows = [
        {item.nested_key[1]: json.loads(item.value_json) for item in record.history.item if item.nested_key[0] == name}
        for record in records(run_dir)
    ]
    return [row for row in rows if row]


def test_settings_have_dotted_keys_and_the_run_its_group(result: TrainResult) -> None:
    (run,) = [record.run for record in records(result.run_dir) if record.run.run_id]
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["model.num_filters"] == 8
    assert settings["trainer.max_steps"] == 4
    assert run.run_group == "ladder"


@pytest.mark.parametrize("name", ["latents", "bits_per_latent", "bits_per_channel"])
def test_each_validation_sends_histograms(result: TrainResult, name: str) -> None:
    (histogram,) = logged(result.run_dir, f"histograms/{name}")
    assert histogram["_type"] == "histogram"
    assert len(histogram["bins"]) == NUM_BINS + 1
    assert sum(histogram["values"]) == 12 if name == "bits_per_channel" else sum(histogram["values"]) > 12


def test_the_best_model_is_sent_as_an_export(result: TrainResult) -> None:
    (artifact,) = [record.artifact for record in records(result.run_dir) if record.HasField("artifact")]
    assert artifact.type == "model"
    assert artifact.name == "lr_1e-4-export"
    assert {entry.path for entry in artifact.manifest.contents} == {"README.md", "config.json", "model.safetensors"}
    codec = load_codec(result.run_dir / "export")
    assert json.loads(artifact.metadata)["fingerprint"] == codec.fingerprint.hex()
    assert codec.fingerprint == load_codec(result.run_dir).fingerprint


def test_a_model_that_wandb_cannot_take_is_exported_with_a_warning(
    result: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError("Unable to write staging files")

    monkeypatch.setattr(wandb.Artifact, "add_dir", forbidden)
    logger: Any = SimpleNamespace(experiment=SimpleNamespace(name="run"))
    with pytest.warns(UserWarning, match=r"not uploaded to W&B \(Unable to write staging files\)"):
        log_export(logger, result.last, tmp_path / "export")
    assert load_codec(tmp_path / "export").fingerprint == load_codec(result.last).fingerprint


def test_a_long_name_is_cut_to_what_wandb_takes() -> None:
    assert len(artifact_name(250 * "\u732b")) <= 128


@pytest.mark.parametrize("stored", [b"", b"\xff\xfe", b"a/b", 65 * b"x"])
def test_a_damaged_id_makes_the_session_a_new_wandb_run(stored: bytes, tmp_path: Path) -> None:
    (tmp_path / "run_id").write_bytes(stored)
    with pytest.warns(UserWarning, match="run_id: does not hold the id of a W&B run"):
        assert re.fullmatch("[0-9a-f]{8}", _wandb_id(tmp_path / "run_id"))
    (tmp_path / "run_id").write_bytes(b"0123abcd")
    assert _wandb_id(tmp_path / "run_id") == "0123abcd"


def test_an_unreachable_wandb_leaves_the_run_offline(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, shards, *NOTHING_CODED, "wandb.mode=online", "trainer.max_steps=2")
    server = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "2"}
    _, output = output_of(script(config, "print('DONE', train(config).steps)"), **server)
    assert "DONE 2" in output
    assert "W&B cannot be reached" in output
    assert "wandb sync" in output
    assert list((config.run_dir / "wandb").glob("offline-run-*/run-*.wandb"))


@pytest.mark.parametrize("variable", ["WANDB_BASE_URL", "WANDB_RUN_ID"])
def test_an_environment_variable_that_wandb_refuses_ends_the_run_in_one_line(
    variable: str, shards: Path, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, shards, "wandb.mode=offline")
    status, output = output_of([*JAHP, "train", settings_of(config)], **{variable: "a/b"})
    assert status == 2
    message = output.splitlines()[-1]
    assert message.startswith("jahp: wandb.mode=offline: W&B refuses its settings")
    assert "correct the environment variables WANDB_..." in message
    assert not config.run_dir.exists()


def test_without_an_account_the_run_is_kept_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    config = load_config(f"output_dir={tmp_path}", "name=run", "wandb.mode=online")
    with pytest.warns(UserWarning, match="W&B cannot be reached .*; the run is kept offline; upload it later"):
        logger = wandb_logger(config)
    assert logger is not None
    logger.log_metrics({"a": 1.0}, step=1)
    finish_wandb(logger)
    assert list((config.run_dir / "wandb").glob("offline-run-*/run-*.wandb"))
