"""Sweep files: `jahp sweep` reads them like W&B's agent, and reports mistakes in one line."""

from __future__ import annotations

import operator
import re
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from wandb import wandb_agent
from wandb.sdk.launch.sweeps.utils import load_sweep_config

from jahp_pl.cli.command_line import _parser
from jahp_pl.settings import load_config
from jahp_pl.sweeping.file import read_sweep
from jahp_pl.sweeping.runs import check_sweep, grid_runs, make_run
from tests.support import ROOT, pages
from tests.support.commands import run
from tests.support.sweep_files import SMALL, small, write

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
LOW, HIGH = (0.0018, 0.0035, 0.0067, 0.0130), (0.0250, 0.0483, 0.0932, 0.1800)
ENTROPY_MODELS = ("factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint")


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


# The files of this project --------------------------------------------------------------------------------------------


class Launched:
    """Substitute for the process that W&B's agent would start."""

    def __init__(self, command: list[str], **_: Any) -> None:
        self.command = command


def rendered(path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command that W&B's own agent makes from a sweep file and the server's values."""
    content = load_sweep_config(str(path))
    assert content is not None
    agent = wandb_agent.Agent(api=None, queue=None, sweep_id="local")
    agent._sweep_command = list(content["command"])
    monkeypatch.setattr(wandb_agent, "AgentProcess", Launched)
    args = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"type": "run", "run_id": "r1", "program": content["program"], "args": args})
    command: list[str] = agent._run_processes["r1"].command
    return command


def test_the_files_hold_the_published_runs() -> None:
    def values(name: str) -> list[tuple[Any, ...]]:
        return [tuple(run.values.values()) for run in grid_runs(read_sweep(ROOT / "sweeps" / f"{name}.yaml"))]

    assert values("ladder") == list(product(ENTROPY_MODELS, LOW))
    assert values("lambda") == [(value,) for value in LOW]
    assert values("lambda_high") == [(value,) for value in HIGH]
    assert values("mixture") == list(product(("gaussian", "laplace", "logistic"), (1, 2, 3, 5), LOW))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of W&B's reader
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_run_renders_with_the_agent_of_wandb_and_loads(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # which the agent sets permanently
        monkeypatch.setenv(name, "")
    sweep, run_dirs = read_sweep(path), set()
    runs = grid_runs(sweep)
    for swept in runs:
        command = rendered(path, dict(swept.values), monkeypatch)
        assert command[:5] == ["/usr/bin/env", "python", "-m", "jahp_pl", "train"]
        config = load_config(*command[5:])
        assert command[5:] == sweep.settings(swept.values)
        assert config.wandb.mode == "online"
        assert config.wandb.group == path.stem.split("_")[0]
        for key, value in swept.values.items():
            assert operator.attrgetter(key)(config) == value
        assert config.run_dir == swept.config.run_dir
        assert swept.config.wandb.mode == "disabled"
        run_dirs.add(config.run_dir)
    assert len(run_dirs) == len(runs)


def test_the_example_of_the_page_is_a_sweep(tmp_path: Path) -> None:
    (example,) = (block.text for block in pages.blocks(pages.read("sweeps")) if block.language == "yaml")
    (tmp_path / "search.yaml").write_text(example)
    sweep = read_sweep(tmp_path / "search.yaml")
    check_sweep(sweep)
    run = make_run(sweep, {"optim.learning_rate": 0.00012, "model.num_components": 3})
    assert str(run.config.run_dir) == "runs/search/lr0.00012-K3"


def test_the_commands_of_the_page_work(capsys: pytest.CaptureFixture[str]) -> None:
    for command in pages.commands(pages.read("sweeps")):
        words = command.split()
        if words[0] == "jahp" and words[1] != "sweep":
            _parser().parse_args(words[1:])  # exits if the command does not exist in this form
        elif words[0] == "jahp":
            assert run(*words[1:], *([] if "--list" in words else ["--list"])) == 0  # listed, not trained
            assert len(re.findall(r"^jahp train ", capsys.readouterr().out, flags=re.MULTILINE)) == 20
        else:
            assert words[:2] == ["wandb", "agent"] or read_sweep(Path(words[2]))


def test_the_high_rates_have_the_wide_latents() -> None:
    low, high = (grid_runs(read_sweep(ROOT / "sweeps" / f"{name}.yaml")) for name in ("lambda", "lambda_high"))
    assert {run.config.model.num_latents for run in low} == {192}
    assert {run.config.model.num_latents for run in high} == {320}
    assert {run.config.output_dir for run in (*low, *high)} == {"runs/lambda"}


def test_variables_of_the_environment_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDS", "/data/shards")
    command = ["jahp", "train", "data.train=[${envvar:SHARDS}]", "${args_no_hyphens}"]
    sweep = small(tmp_path, command=command, metric=None)
    assert grid_runs(sweep)[0].config.data.train == ["/data/shards"]


# Bad input ------------------------------------------------------------------------------------------------------------

LMBDA = {"values": [0.01]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"parameter": {}}, "parameter: a sweep file has no such key; did you mean parameters?"),
    "unknown method": ({"method": "anneal"}, "method=anneal: must be one of grid, random, bayes"),
    "no method": ({"method": None}, "method=None: must be one of"),
    "no parameters": ({"parameters": {}}, "parameters: has no settings to sweep; add at least one"),
    "empty grid": ({"parameters": {"loss.lmbda": {"values": []}}}, "loss.lmbda.values: must be a list"),
    "unknown setting": (
        {"parameters": {"loss.lamda": LMBDA}}, "parameters.loss.lamda: no such setting; did you mean loss.lmbda?"
    ),
    "nested": (
        {"parameters": {"loss": {"parameters": {"lmbda": LMBDA}}}},
        "parameters.loss: is nested; write dotted keys, e.g. loss.lmbda",
    ),
    "a swept name": ({"parameters": {"name": {"values": ["a"]}}}, "parameters.name: cannot be swept"),
    "out of the schema": (
        {"parameters": {"loss.lmbda": {"values": [0.01, -1]}}}, "loss.lmbda=-1.0: must be positive and finite"
    ),
    "wrong type": (
        {"parameters": {"model.num_latents": {"values": ["many"]}}}, "model.num_latents=many: must be a whole number"
    ),
    "one range end out of the schema": (
        {"method": "random", "run_cap": 1, "parameters": {"model.num_components": {"min": 1, "max": 99}}},
        "model.num_components=99: must be from 1 to 16",
    ),
    "contradiction of settings": (
        {"parameters": {"model.entropy_model": {"value": "factorized"}, "model.num_components": {"values": [1, 3]}}},
        "model.entropy_model=factorized: the factorized model learns a free density",
    ),
    "unlogged metric": (
        {"metric": {"name": "val/los"}}, "metric.name=val/los: small-lmbda0.01 never logs it; did you mean val/loss?"
    ),
    "metric of another distortion": ({"metric": {"name": "train/one_minus_ms_ssim"}}, "never logs it"),
    "metric without validation": (
        {"command": ["jahp", "train", "${args_no_hyphens}"]}, "data.val is empty, so nothing is validated"
    ),
    "metric of files without coding": (
        {"metric": {"name": "val/file_bpp"}, "command": [*SMALL["command"], "coding.max_images=0"]}, "never logs it"
    ),
    "metric without name": ({"metric": {"goal": "minimize"}}, "metric.name: is missing"),
    "unknown goal": ({"metric": {"name": "val/loss", "goal": "least"}}, "metric.goal=least: must be minimize or"),
    "bayes without metric": ({"method": "bayes", "run_cap": 2, "metric": None}, "metric: is missing; method bayes"),
    "random without end": ({"method": "random"}, "run_cap: is missing; method random never ends"),
    "no cap": ({"run_cap": 0}, "run_cap=0: must be a whole number of at least 1"),
    "grid over a range": (
        {"parameters": {"loss.lmbda": {"min": 0.1, "max": 0.2}}}, "parameters.loss.lmbda: has no finite grid"
    ),
    "number that YAML reads as a word": (
        {"metric": {"name": "val/loss", "target": "1.0e9"}}, "metric.target=1.0e9: must be a number (YAML reads"
    ),
    "target that is not a number": (
        {"metric": {"name": "val/loss", "target": float("nan")}}, "metric.target=nan: must be a number"
    ),
    "end that YAML reads as a word": (
        {"parameters": {"loss.lmbda": {"min": "1e-4", "max": 0.2}}}, "loss.lmbda.min=1e-4: must be a number (YAML reads"
    ),
    "empty range": ({"parameters": {"loss.lmbda": {"min": 0.2, "max": 0.2}}}, "min=0.2 must be below max=0.2"),
    "half a range": ({"parameters": {"loss.lmbda": {"min": 0.2}}}, "parameters.loss.lmbda.max: is missing"),
    "log of zero": (
        {"parameters": {"loss.lmbda": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
        "loss.lmbda.min=0: must be positive for log_uniform_values",
    ),
    "unknown distribution": (
        {"parameters": {"loss.lmbda": {"distribution": "beta", "min": 0, "max": 1}}}, "distribution=beta: is not"
    ),
    "unknown word": ({"parameters": {"loss.lmbda": {"vals": [1]}}}, "parameters.loss.lmbda.vals: no such key"),
    "null": ({"parameters": {"trainer.max_time": {"values": [None]}}}, "None cannot be passed on a command line"),
    "twice": ({"parameters": {"loss.lmbda": {"values": [0.1, 0.1]}}}, "parameters.loss.lmbda.values: has 0.1 twice"),
    "a date": ({"parameters": {"data.cache_dir": {"values": [date(2001, 1, 1)]}}}, "2001-01-01 cannot be passed on a"),
    "a list of lists": ({"parameters": {"data.val": {"values": [[["a"]]]}}}, "[['a']] cannot be passed"),
    "no character of a command line": ({"parameters": {"data.cache_dir": {"value": "a\0"}}}, "cannot be passed on a"),
    "nested emptily": ({"parameters": {"loss": {"parameters": None}}}, "parameters.loss: is nested; write dotted keys"),
    "nested number": ({"parameters": {"loss": {"parameters": 3}}}, "parameters.loss: is nested; write dotted keys"),
    "distributions": (
        {"parameters": {"loss.lmbda": {"distribution": ["uniform"], "min": 0, "max": 1}}},
        "=['uniform']: is not supported",
    ),
    "a number without end": ({"parameters": {"seed": {"min": 0, "max": 10**400}}}, "seed.max=1000"),
    "steps that are none": (
        {"parameters": {"loss.lmbda": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 1e-300}}}, "1e-300: is too"
    ),
    "a grid of thousands": (
        {"parameters": {"seed": {"min": 0, "max": 4294967295}, "loss.lmbda": LMBDA}},
        "has more than 10000 runs; set run_cap to fewer, or give fewer values",
    ),
    "a cap of thousands": (
        {"method": "random", "run_cap": 10**9, "parameters": {"seed": {"min": 0, "max": 4294967295}}},
        "has more than 10000 runs",
    ),
    "a command in one word": ({"command": "jahp train ${args_no_hyphens}"}, "command: must be a list of words; it"),
    "a command of lists": ({"command": [["jahp", "train"]]}, "command: must be a list of words; it"),
    "no command": ({"command": None}, "command: is missing; it must run `python -m jahp_pl train"),
    "another program": ({"command": ["python", "train.py", "${args_no_hyphens}"]}, "command: does not train"),
    "values with hyphens": ({"command": ["jahp", "train", "${args}"]}, "command: ${args} is not supported"),
    "values left out": ({"command": ["jahp", "train"]}, "command: must contain ${args_no_hyphens} once"),
    "one name for all": (
        {"command": ["jahp", "train", "name=one", "data.val=[x]", "${args_no_hyphens}"]},
        "loss.lmbda=0.02 is not visible in the name one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_in_a_file_is_reported_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, words = BAD[case]
    path = write(tmp_path, **changes)
    assert run("sweep", path, f"output_dir={tmp_path / 'runs'}") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"jahp: {path}: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_an_invalid_file_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, words in (
        (b"a: [", "cannot be read as YAML"),
        (b"run_cap: -0x" + b"f" * 4000, "a whole number has thousands of digits; write fewer"),
        (b"- a", "is not a mapping"),
        (b"\xff", "YAML"),
        (b"values: [2001-99-99]", "2001-99-99 is not a valid timestamp (month must be in 1..12"),
        (b"run_cap: !!int many", "many is not a valid int"),
        (b"run_cap: !!bool many", "many is not a valid bool"),
        (b'name: "\\UFFFFFFFF"', "cannot be read as YAML"),
        (b"a: " + b"[" * 2000, "cannot be read as YAML: it is nested too deeply"),
        (b"a: " + b"[" * 2000 + b"]" * 2000, "cannot be read as YAML: it is nested too deeply"),
        (b"method: grid\nmethod: random", "method: is given twice, again in line 2; keep one"),
        (b"parameters:\n  seed: {value: 1}\n  'seed': {value: 2}", "seed: is given twice, again in line 3; keep one"),
    ):
        (tmp_path / "x.yaml").write_bytes(content)
        assert run("sweep", tmp_path / "x.yaml") == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert run("sweep", tmp_path / "nowhere.yaml") == 2
    assert capsys.readouterr().err == f"jahp: {tmp_path / 'nowhere.yaml'}: no such sweep file; check the path\n"


def test_yaml_that_merges_mappings_gives_nothing_twice(tmp_path: Path) -> None:
    path = write(tmp_path, parameters={})
    merging = "parameters: {loss.lmbda: &a {value: 0.1}, model.num_components: {<<: *a, value: 3}}"
    path.write_text(path.read_text().replace("parameters: {}", merging))
    assert [run.config.model.num_components for run in grid_runs(read_sweep(path))] == [3]


def test_settings_may_follow_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sweep", write(tmp_path), "--list", "optim.clip_norm=0.5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("optim.clip_norm=0.5" in line for line in lines)
    assert run("sweep", write(tmp_path), "--lst", "optim.clip_norm=0.5") == 2
    assert "unrecognized arguments: --lst" in capsys.readouterr().err
