"""Sweep files: `jahp sweep` reads them like W&B's agent, and reports mistakes in one line."""

from __future__ import annotations

import csv
import io
import json
import operator
import random
import re
import subprocess
import sys
from collections import Counter
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb import wandb_agent
from wandb.sdk.launch.sweeps.utils import load_sweep_config

from jahp_pl.files import write_atomically
from jahp_pl.settings import load_config
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.bayes import ScoredPoint, propose
from jahp_pl.sweeping.file import SweepFile, read_sweep
from jahp_pl.sweeping.parameters import Parameter, parse_parameter
from jahp_pl.sweeping.points import (
    Entry,
    SweepPoint,
    best,
    check_sweep,
    grid_points,
    has_reached_target,
    make_point,
    random_points,
)
from jahp_pl.sweeping.processes import environments
from jahp_pl.sweeping.results import read_sweep_results, write_sweep_results
from jahp_pl.sweeping.table import LiveTable, format_sweep_table
from tests.support import pages
from tests.support.commands import run

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
LOW, HIGH = (0.0018, 0.0035, 0.0067, 0.0130), (0.0250, 0.0483, 0.0932, 0.1800)
RUNGS = ("factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint")
SMALL: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "val/loss"},
    "parameters": {"loss.lmbda": {"values": [0.01, 0.02]}},
    "command": ["${env}", "${interpreter}", "-m", "jahp_pl", "train", "data.val=[x]", "${args_no_hyphens}"],
}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def write(folder: Path, **changes: Any) -> Path:
    """Write `SMALL` with other entries to a file; None removes one."""
    content = {key: value for key, value in (SMALL | changes).items() if value is not None}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def small(folder: Path, **changes: Any) -> SweepFile:
    return read_sweep(write(folder, **changes))


# The files of this project --------------------------------------------------------------------------------------------


class Launched:
    """Stands in for the process that W&B's agent would start."""

    def __init__(self, command: list[str], **_: Any) -> None:
        self.command = command


def rendered(path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command that W&B's own agent makes of a sweep file and the server's values."""
    content = load_sweep_config(str(path))
    assert content is not None
    agent = wandb_agent.Agent(api=None, queue=None, sweep_id="local")
    agent._sweep_command = list(content["command"])
    monkeypatch.setattr(wandb_agent, "AgentProcess", Launched)
    args = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"type": "run", "run_id": "r1", "program": content["program"], "args": args})
    command: list[str] = agent._run_processes["r1"].command
    return command


def test_the_files_hold_the_published_points() -> None:
    def values(name: str) -> list[tuple[Any, ...]]:
        return [tuple(point.values.values()) for point in grid_points(read_sweep(ROOT / "sweeps" / f"{name}.yaml"))]

    assert values("ladder") == list(product(RUNGS, LOW))
    assert values("lambda") == [(value,) for value in LOW]
    assert values("lambda_high") == [(value,) for value in HIGH]
    assert values("mixture") == list(product(("gaussian", "laplace", "logistic"), (1, 2, 3, 5), LOW))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of W&B's reader
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_point_renders_with_the_agent_of_wandb_and_loads(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # which the agent sets permanently
        monkeypatch.setenv(name, "")
    sweep, run_dirs = read_sweep(path), set()
    points = grid_points(sweep)
    for point in points:
        command = rendered(path, dict(point.values), monkeypatch)
        assert command[:5] == ["/usr/bin/env", "python", "-m", "jahp_pl", "train"]
        config = load_config(*command[5:])
        assert command[5:] == sweep.settings(point.values)
        assert config.wandb.mode == "online"
        assert config.wandb.group == path.stem.split("_")[0]
        for key, value in point.values.items():
            assert operator.attrgetter(key)(config) == value
        assert config.run_dir == point.config.run_dir
        assert point.config.wandb.mode == "disabled"
        run_dirs.add(config.run_dir)
    assert len(run_dirs) == len(points)


def test_the_example_of_the_page_is_a_sweep(tmp_path: Path) -> None:
    (example,) = (block.text for block in pages.blocks(pages.read("sweeps")) if block.language == "yaml")
    (tmp_path / "search.yaml").write_text(example)
    sweep = read_sweep(tmp_path / "search.yaml")
    check_sweep(sweep)
    point = make_point(sweep, {"optim.learning_rate": 0.00012, "model.num_components": 3})
    assert str(point.config.run_dir) == "runs/search/lr0.00012-K3"


def test_the_commands_of_the_page_work(capsys: pytest.CaptureFixture[str]) -> None:
    for command in pages.commands(pages.read("sweeps")):
        words = command.split()
        if words[0] == "jahp":
            assert run(*words[1:], *([] if "--list" in words else ["--list"])) == 0  # listed, not trained
            assert len(re.findall(r"^jahp train ", capsys.readouterr().out, flags=re.MULTILINE)) == 20
        else:
            assert words[:2] == ["wandb", "agent"] or read_sweep(Path(words[2]))


def test_the_high_rates_have_the_wide_latents() -> None:
    low, high = (grid_points(read_sweep(ROOT / "sweeps" / f"{name}.yaml")) for name in ("lambda", "lambda_high"))
    assert {point.config.model.num_latents for point in low} == {192}
    assert {point.config.model.num_latents for point in high} == {320}
    assert {point.config.output_dir for point in (*low, *high)} == {"runs/lambda"}


def listed(parameter: Parameter) -> list[Any]:
    return [parameter.nth(index) for index in range(parameter.num_values or 0)]


# Points ---------------------------------------------------------------------------------------------------------------


def test_overrides_come_last_and_turn_wandb_on(tmp_path: Path) -> None:
    point = grid_points(small(tmp_path), ["optim.clip_norm=0.5", "wandb.mode=offline"])[0]
    assert point.config.optim.clip_norm == 0.5
    assert point.config.wandb.mode == "offline"


def test_names_follow_from_the_values_if_the_command_has_none(tmp_path: Path) -> None:
    parameters = {"loss.lmbda": {"values": [0.01, 0.02]}, "data.val": {"values": [["a/b"], ["a/c"]]}}
    names = [point.name for point in grid_points(small(tmp_path, parameters=parameters))]
    assert names == [f"small-lmbda{lmbda}-val_a_{part}" for lmbda in (0.01, 0.02) for part in "bc"]


def test_random_points_are_the_same_in_every_session_and_all_different(tmp_path: Path) -> None:
    parameters = {
        "loss.lmbda": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        "model.num_components": {"min": 1, "max": 3},
    }
    sweep = small(tmp_path, method="random", run_cap=30, parameters=parameters)
    points = random_points(sweep)
    assert points == random_points(sweep)
    assert points[:10] == random_points(sweep._replace(run_cap=10))
    assert len({point.name for point in points}) == 30
    lmbdas = [point.config.loss.lmbda for point in points]
    assert 0.001 <= min(lmbdas) < 0.003
    assert 0.03 < max(lmbdas) <= 0.1
    assert 9 < sum(lmbda < 0.01 for lmbda in lmbdas) < 21
    assert {point.config.model.num_components for point in points} == {1, 2, 3}


def test_random_draws_end_when_a_space_is_exhausted(tmp_path: Path) -> None:
    assert len(random_points(small(tmp_path, method="random", run_cap=9))) == 2


def test_probabilities_weigh_random_draws(tmp_path: Path) -> None:
    parameter = parse_parameter("loss.lmbda", {"values": [1, 2, 3], "probabilities": [0.1, 0.9, 0.0]})
    source = random.Random(0)
    counts = Counter(parameter.draw(source) for _ in range(1000))
    assert counts[3] == 0
    assert 850 < counts[2] < 950  # ten standard deviations


def test_stepped_ranges_are_listed_without_binary_noise() -> None:
    parameter = parse_parameter("optim.ema_decay", {"distribution": "q_uniform", "min": 0.1, "max": 0.45, "q": 0.1})
    assert listed(parameter) == [0.1, 0.2, 0.3, 0.4]
    assert [value for value in (0, 0.05, 0.1, 0.3, 0.4, 0.45, 0.5, "0.1") if parameter.contains(value)] == [
        0.1,
        0.3,
        0.4,
    ]
    assert listed(parse_parameter("seed", {"min": 3, "max": 5})) == [3, 4, 5]


@pytest.mark.parametrize(
    "content",
    [{"min": -3, "max": 40}, {"min": 0, "max": 1}, {"distribution": "q_uniform", "min": 0.1, "max": 0.97, "q": 0.01}],
)
def test_draws_are_those_of_a_choice_among_all_values(content: dict[str, Any]) -> None:
    parameter = parse_parameter("seed", content)
    for number in range(200):
        drawn_value = parameter.draw(random.Random(number))
        assert drawn_value == random.Random(number).choice(listed(parameter))
        assert parameter.contains(drawn_value)


def test_a_range_of_all_seeds_takes_no_memory(tmp_path: Path) -> None:
    seeds = {"seed": {"min": 0, "max": 4294967295}}
    path = write(tmp_path, method="random", run_cap=3, parameters=seeds)
    found = subprocess.run(
        ["bash", "-c", 'ulimit -v 16777216; exec "$0" -m jahp_pl sweep "$1" --list', sys.executable, path],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stdout.count("jahp train")) == (0, 3), found.stderr
    drawn_seeds = {point.config.seed for point in random_points(read_sweep(path))}
    assert len(drawn_seeds) == 3
    assert max(drawn_seeds) > 2**24
    assert [point.config.seed for point in grid_points(small(tmp_path, run_cap=2, parameters=seeds))] == [0, 1]


def test_a_capped_grid_begins_like_the_whole_one(tmp_path: Path) -> None:
    parameters = {"seed": {"min": 1, "max": 3}, "loss.lmbda": {"values": [0.01, 0.02]}}
    points = grid_points(small(tmp_path, parameters=parameters))
    assert [tuple(point.values.values()) for point in points] == list(product((1, 2, 3), (0.01, 0.02)))
    for cap in range(1, 8):
        assert grid_points(small(tmp_path, parameters=parameters, run_cap=cap)) == points[:cap]


def test_the_grid_stops_at_the_cap(tmp_path: Path) -> None:
    assert len(grid_points(small(tmp_path, run_cap=1))) == 1


def test_variables_of_the_environment_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDS", "/data/shards")
    command = ["jahp", "train", "data.train=[${envvar:SHARDS}]", "${args_no_hyphens}"]
    sweep = small(tmp_path, command=command, metric=None)
    assert grid_points(sweep)[0].config.data.train == ["/data/shards"]


# Bayes ----------------------------------------------------------------------------------------------------------------


def test_proposals_approach_the_optimum_and_follow_from_the_history_alone() -> None:
    pytest.importorskip("optuna")
    space = [
        parse_parameter("optim.learning_rate", {"distribution": "log_uniform_values", "min": 1.0e-5, "max": 1.0e-1}),
        parse_parameter("model.rung", {"values": ["joint", "context"]}),
        parse_parameter("optim.ema_decay", {"distribution": "q_uniform", "min": 0.0, "max": 0.95, "q": 0.1}),
    ]

    def score(values: dict[str, Any]) -> float:
        import math

        return (math.log10(values["optim.learning_rate"]) + 3) ** 2 + (values["model.rung"] != "joint")

    history: list[ScoredPoint] = []
    for number in range(30):
        values = propose(space, history, is_minimum=True)
        assert values is not None
        assert values == propose(space, history, is_minimum=True)
        assert all(parameter.contains(values[parameter.key]) for parameter in space)
        assert values not in [trial.values for trial in history]
        known = None if number % 7 == 3 else score(values)
        history.append(ScoredPoint(values, known, is_open=number == 28))
    late = [trial.values for trial in history[15:]]
    assert sum(score(dict(values)) < 0.3 for values in late) >= 8  # one in ten of random draws


def test_proposals_end_when_a_space_is_exhausted() -> None:
    pytest.importorskip("optuna")
    space = [parse_parameter("model.rung", {"values": ["joint", "context"]})]
    history = [ScoredPoint({"model.rung": rung}, 1.0, is_open=False) for rung in ("joint", "context")]
    assert propose(space, history, is_minimum=True) is None


def test_without_optuna_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    path = write(tmp_path, method="bayes", run_cap=3)
    assert run("sweep", path, f"output_dir={tmp_path}") == 2
    assert capsys.readouterr().err == (
        "jahp: method bayes needs Optuna, which is not installed; pip install 'jahp_pl[sweep]'\n"
    )


# Results and the table ------------------------------------------------------------------------------------------------


def entries(sweep: SweepFile, *scores: float | None) -> list[Entry]:
    points = grid_points(sweep)
    return [
        Entry(point, "failed" if value is None else "done", 8, 1.5, {} if value is None else {"val/loss": value})
        for point, value in zip(points, scores, strict=True)
    ]


def test_the_best_point_is_that_of_the_goal(tmp_path: Path) -> None:
    sweep = small(tmp_path, parameters={"loss.lmbda": {"values": [0.01, 0.02, 0.03]}})
    for goal, number in (("minimize", 1), ("maximize", 0)):
        aimed = sweep._replace(goal=goal, target=2.0)  # type: ignore[arg-type]
        rows = entries(aimed, 3.0, 1.0, None)
        assert best(rows, aimed) is rows[number]
        assert has_reached_target(rows, aimed)
        assert not has_reached_target(rows, aimed._replace(target=0.5 if goal == "minimize" else 3.5))
    assert best(entries(sweep, None, None, None), sweep) is None


def test_results_are_read_back_and_their_csv_has_a_row_for_each_point(tmp_path: Path) -> None:
    sweep, path = small(tmp_path), tmp_path / "results.json"
    write_sweep_results(path, sweep, entries(sweep, 3.0, None))
    first, second = read_sweep_results(path)
    assert first == ("small-lmbda0.01", {"loss.lmbda": 0.01}, 8, 1.5, {"val/loss": 3.0})
    assert second == ("small-lmbda0.02", {"loss.lmbda": 0.02}, 8, 1.5, {})
    assert json.loads(path.read_text())["best"] == "small-lmbda0.01"
    rows = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
    assert [(row["name"], row["state"], row["loss.lmbda"], row["val/loss"]) for row in rows] == [
        ("small-lmbda0.01", "done", "0.01", "3.0"), ("small-lmbda0.02", "failed", "0.02", "")
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_results_of_another_sweep_are_neither_mixed_in_nor_replaced(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if method == "bayes":
        pytest.importorskip("optuna")
    path = tmp_path / "small.json"
    write_sweep_results(path, small(tmp_path), entries(small(tmp_path), 3.0, 2.0))
    before = path.read_bytes(), path.with_suffix(".csv").read_bytes()
    other = write(tmp_path, method=method, run_cap=2, parameters={"loss.lmbda": {"values": [0.01, 0.5]}})
    assert run("sweep", other, f"output_dir={tmp_path}") == 2
    assert capsys.readouterr().err == (
        f"jahp: {path}: has small-lmbda0.02, which is not a point of {other}; move it away, or choose another "
        "output_dir=...\n"
    )
    assert (path.read_bytes(), path.with_suffix(".csv").read_bytes()) == before


@pytest.mark.parametrize("method", ["grid", "random"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("small.json", "{}"), ("small.json", "[1, 2"), ("small.json", '{"points": []}'), ("small.json", "[" * 100_000),
        ("small.json", '{"sweep": "a", "points": [{"name": "b"}]}'), ("small.json", '{"sweep": "a", "points": [3]}'),
        ("small.csv", "city,population\n"), ("small.csv", ""),
    ],
)  # fmt: skip
def test_files_without_results_are_not_replaced(
    name: str, content: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs" / name
    write_atomically(path, content.encode())
    assert run("sweep", write(tmp_path, method=method, run_cap=2), f"output_dir={path.parent}") == 2
    error = capsys.readouterr().err
    assert error == f"jahp: {path}: has no results of a sweep; move it away, or choose another output_dir=...\n"
    assert path.read_text() == content
    assert sorted(path.parent.iterdir()) == sorted([path, path.parent / ".small.lock"])


def test_a_long_table_shows_what_runs_and_what_failed(tmp_path: Path) -> None:
    sweep = small(tmp_path, parameters={"loss.lmbda": {"values": [n / 100 for n in range(1, 31)]}})
    rows = [Entry(point) for point in grid_points(sweep)]
    rows[20].state, rows[29].state = "running", "failed"
    rows[20].metrics = {"step": 250_000.0}
    lines = format_sweep_table(sweep, rows, most=5)
    assert len(lines) == 2 + 4 + 1
    assert "running 25 %" in lines[-3]
    assert "failed" in lines[-2]
    assert lines[-1] == "and 26 more"
    assert len(format_sweep_table(sweep, rows)) == 32


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_table_is_drawn_over_itself_and_failures_stay(tmp_path: Path) -> None:
    sweep = small(tmp_path)
    rows, stream = [Entry(point) for point in grid_points(sweep)], Terminal()
    table = LiveTable(sweep, rows, stream)
    rows[0].state = "running"
    table.changed(rows[0], ())
    rows[0].state, rows[0].error = "failed", "no shards"
    table.changed(rows[0], ["a traceback", "no shards"])
    table.close()
    screen = [""]
    for part in re.split("\x1b\\[(?=[0-9]*[AJ])", stream.getvalue()):
        up = re.match("([0-9]+)A", part)
        if up is not None:
            screen = [*screen[: len(screen) - 1 - int(up[1])], ""]
        lines = re.sub("^([0-9]+A|J)", "", part).split("\n")
        screen = [*screen[:-1], screen[-1] + lines[0], *lines[1:]]
    assert [line.strip() for line in screen if line] == [
        "small-lmbda0.01: failed: no shards", "| a traceback", "| no shards", "| (runs/small-lmbda0.01/log.txt)"
    ]  # fmt: skip


def test_workers_share_gpus_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert environments(1, 1) == [{}]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in environments(3, 2)] == ["0,1", "2,3", "0,1"]
    assert all(int(share["OMP_NUM_THREADS"]) >= 1 for share in environments(3, 2))
    assert all("CUDA_VISIBLE_DEVICES" not in share for share in environments(3, 0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in environments(2, 1)] == ["5", "7"]


# Bad input ------------------------------------------------------------------------------------------------------------

LMBDA = {"values": [0.01]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"parameter": {}}, "parameter: no such key of a sweep; did you mean parameters?"),
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
    "wrong type": ({"parameters": {"model.num_latents": {"values": ["many"]}}}, "model.num_latents: Value 'many'"),
    "one range end out of the schema": (
        {"method": "random", "run_cap": 1, "parameters": {"model.num_components": {"min": 1, "max": 99}}},
        "model.num_components=99: must be from 1 to 16",
    ),
    "contradiction of settings": (
        {"parameters": {"model.rung": {"value": "factorized"}, "model.num_components": {"values": [1, 3]}}},
        "model.rung=factorized: the factorized rung learns a free density",
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
        "has more than 10000 points; set run_cap to fewer, or give fewer values",
    ),
    "a cap of thousands": (
        {"method": "random", "run_cap": 10**9, "parameters": {"seed": {"min": 0, "max": 4294967295}}},
        "has more than 10000 points",
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
    assert [point.config.model.num_components for point in grid_points(read_sweep(path))] == [3]


def test_overrides_that_conflict_with_the_file_are_refused(tmp_path: Path) -> None:
    sweep = small(tmp_path)
    with pytest.raises(SweepError, match=r"loss\.lmbda=1: is swept by"):
        check_sweep(sweep, ["loss.lmbda=1"])
    with pytest.raises(SweepError, match=r"no such setting; did you mean loss\.lmbda"):
        check_sweep(sweep, ["loss.lamda=1"])
    with pytest.raises(SweepError, match="output_dir must be the same"):
        check_sweep(sweep, ["output_dir=runs/${loss.lmbda}"])


def test_settings_may_follow_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sweep", write(tmp_path), "--list", "optim.clip_norm=0.5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("optim.clip_norm=0.5" in line for line in lines)
    assert run("sweep", write(tmp_path), "--lst", "optim.clip_norm=0.5") == 2
    assert "unrecognized arguments: --lst" in capsys.readouterr().err


def test_a_point_equals_its_loaded_arguments(tmp_path: Path) -> None:
    point = make_point(small(tmp_path), {"loss.lmbda": 0.5}, ["seed=3"])
    assert isinstance(point, SweepPoint)
    assert load_config(*point.arguments) == point.config
    assert (point.config.loss.lmbda, point.config.seed) == (0.5, 3)
