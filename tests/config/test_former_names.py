"""Whatever was written with the former name of a setting is read: files, commands, checkpoints, exports and results."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jahp_pl.config import Config, ConfigError, model_from_dict, to_dict, with_current_names
from jahp_pl.config.changes import find_changes
from jahp_pl.model_io.checkpoint import HYPER_PARAMETERS, load_checkpoint_model, read_checkpoint
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import CONFIG_FILE, read_description
from jahp_pl.model_io.load import load_codec
from jahp_pl.report.read_results import read_curves
from jahp_pl.runtime.load import load_runtime
from jahp_pl.settings import config_from_dict, load_config
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.results import write_sweep_results
from jahp_pl.sweeping.runs import check_sweep, grid_runs
from jahp_pl.sweeping.sweep import Sweep
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import TrainResult
from tests.support.codec_models import JOINT, codec_of
from tests.support.sweep_files import entries, small

RESULTS = Path(__file__).parents[2] / "results"
KINDS = {"values": ["joint", "context"]}


def formerly(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings as former versions wrote them."""
    model = dict(values["model"])
    return {**values, "model": {"rung": model.pop("entropy_model"), **model}}


@pytest.mark.parametrize("pair", ["model.rung=context", "--model.rung=context", "model={rung: context}"])
def test_the_command_line_takes_a_former_name(pair: str) -> None:
    assert load_config(pair).model.entropy_model == "context"


def test_files_take_a_former_name_and_later_arguments_win(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("name: ${model.rung}-1\nmodel: {rung: context}\ndata: {val: ['${model.rung}', b]}\n")
    new.write_text("model: {entropy_model: factorized}\n")
    config = load_config(old)
    assert (config.model.entropy_model, config.name, config.data.val) == ("context", "context-1", ["context", "b"])
    assert load_config(new, old).model.entropy_model == "context"
    assert load_config(old, new).model.entropy_model == "factorized"
    assert load_config(old, "model.entropy_model=joint", "name=${model.entropy_model}").name == "joint"
    assert load_config(new, "model.rung=joint").model.entropy_model == "joint"


def test_both_names_in_one_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("model: {rung: joint, entropy_model: context}\n")
    with pytest.raises(ConfigError, match=r"model\.rung: no such setting; did you mean model\.entropy_model\?"):
        load_config(path)


def test_stored_settings_are_read_by_their_former_names() -> None:
    config = load_config("model.entropy_model=context")
    stored = formerly(to_dict(config))
    assert config_from_dict(stored) == config
    assert model_from_dict(stored["model"]) == config.model
    assert find_changes(stored, config) == []
    assert [str(change) for change in find_changes(stored, Config())] == [
        "model.entropy_model=context instead of joint"
    ]


def test_translating_changes_nothing_else() -> None:
    values = to_dict(Config())
    before = copy.deepcopy(values)
    assert with_current_names(values) == values == before
    assert with_current_names({"rung": 1, 2: {"rung": [3, None]}}) == {"rung": 1, 2: {"rung": [3, None]}}


def test_checkpoints_with_a_former_name_load_and_continue(finished: TrainResult, tmp_path: Path) -> None:
    content = read_checkpoint(finished.last)
    assert "entropy_model" in content[HYPER_PARAMETERS]["model"]
    torch.save({**content, HYPER_PARAMETERS: formerly(content[HYPER_PARAMETERS])}, tmp_path / "old.ckpt")
    model = load_checkpoint_model(tmp_path / "old.ckpt")
    assert model.config == load_checkpoint_model(finished.last).config
    assert CompressionModule.load_from_checkpoint(tmp_path / "old.ckpt").config.model == model.config


def test_exports_with_a_former_name_give_the_same_codec(tmp_path: Path) -> None:
    codec = export(codec_of(JOINT).model, tmp_path / "m", {})
    path = tmp_path / "m" / CONFIG_FILE
    content = json.loads(path.read_text())
    assert content["model"]["entropy_model"] == "joint"
    path.write_text(json.dumps(formerly(content)))
    assert read_description(tmp_path / "m").architecture == codec.model.config
    assert load_codec(tmp_path / "m").fingerprint == load_runtime(tmp_path / "m").fingerprint == codec.fingerprint


def test_results_with_former_and_current_names_join(tmp_path: Path) -> None:
    content = json.loads((RESULTS / "ladder" / "joint-1.json").read_text())
    content["provenance"] = formerly(with_current_names(content["provenance"]))
    for seed, name in enumerate(("rung", "entropy_model")):
        content["provenance"]["training"] = {"seed": seed, "loss": {"lmbda": 0.01}}
        content["provenance"]["model"] = with_current_names(content["provenance"]["model"], "model" if seed else "")
        assert name in content["provenance"]["model"]
        (tmp_path / f"{seed}.json").write_text(json.dumps(content))
    (curve,) = read_curves([tmp_path])
    assert (curve.title, len(curve.seeds)) == ("Joint", 2)


@pytest.mark.parametrize("stored", ["model.rung", "model.entropy_model"])
@pytest.mark.parametrize("swept", ["model.rung", "model.entropy_model"])
def test_a_sweep_continues_whichever_name_its_file_and_its_results_have(
    stored: str, swept: str, tmp_path: Path
) -> None:
    command = ["python", "-m", "jahp_pl", "train", "name=${%s}", "data.val=[x]", f"output_dir={tmp_path}"]
    command = [*command, "${args_no_hyphens}"]

    def sweep_of(key: str) -> Any:
        return small(tmp_path, parameters={key: KINDS}, command=[word.replace("%s", key) for word in command])

    before = sweep_of(stored)
    write_sweep_results(tmp_path / "small.json", before, entries(before, 3.0, 2.0))
    sweep = Sweep(sweep_of(swept))
    sweep.restore()
    assert [entry.run.name for entry in sweep.entries] == ["joint", "context"]
    assert [entry.metrics for entry in sweep.entries] == [{"val/loss": 3.0}, {"val/loss": 2.0}]
    other = "model.rung" if swept == "model.entropy_model" else "model.entropy_model"
    with pytest.raises(SweepError, match=f"{other}=joint: is swept by"):
        check_sweep(sweep.file, [f"{other}=joint"])


def test_run_folders_of_a_former_sweep_keep_their_names(tmp_path: Path) -> None:
    names = [run.name for run in grid_runs(small(tmp_path, parameters={"model.rung": KINDS}))]
    assert names == ["small-rungjoint", "small-rungcontext"]


def test_a_sweep_of_one_setting_under_both_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"parameters\.model\.rung: is model\.entropy_model; keep one of them"):
        small(tmp_path, parameters={"model.entropy_model": KINDS, "model.rung": KINDS})
