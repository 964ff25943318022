"""The runs of a sweep: names, random draws, capped grids, and refusals before anything runs."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from jahp_pl.settings import load_config
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.entries import best_entry, has_reached_target
from jahp_pl.sweeping.file import SweepMetric
from jahp_pl.sweeping.runs import SweepRun, check_sweep, grid_runs, make_run, random_runs
from tests.support.sweep_files import entries, small


def test_overrides_come_last_and_turn_wandb_on(tmp_path: Path) -> None:
    run = grid_runs(small(tmp_path), ["optim.clip_norm=0.5", "wandb.mode=offline"])[0]
    assert run.config.optim.clip_norm == 0.5
    assert run.config.wandb.mode == "offline"
    assert [word for word in run.arguments if word.startswith("wandb.mode")] == ["wandb.mode=offline"]


def test_names_follow_from_the_values_if_the_command_has_none(tmp_path: Path) -> None:
    parameters = {"loss.lmbda": {"values": [0.01, 0.02]}, "data.val": {"values": [["a/b"], ["a/c"]]}}
    names = [run.name for run in grid_runs(small(tmp_path, parameters=parameters))]
    assert names == [f"small-lmbda{lmbda}-val_a_{part}" for lmbda in (0.01, 0.02) for part in "bc"]


def test_random_runs_are_the_same_in_every_session_and_all_different(tmp_path: Path) -> None:
    parameters = {
        "loss.lmbda": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        "model.num_components": {"min": 1, "max": 3},
    }
    sweep = small(tmp_path, method="random", run_cap=30, parameters=parameters)
    runs = random_runs(sweep)
    assert runs == random_runs(sweep)
    assert runs[:10] == random_runs(sweep._replace(run_cap=10))
    assert len({run.name for run in runs}) == 30
    lmbdas = [run.config.loss.lmbda for run in runs]
    assert 0.001 <= min(lmbdas) < 0.003
    assert 0.03 < max(lmbdas) <= 0.1
    assert 9 < sum(lmbda < 0.01 for lmbda in lmbdas) < 21
    assert {run.config.model.num_components for run in runs} == {1, 2, 3}


def test_random_draws_end_when_a_space_is_exhausted(tmp_path: Path) -> None:
    assert len(random_runs(small(tmp_path, method="random", run_cap=9))) == 2


def test_a_capped_grid_begins_like_the_whole_one(tmp_path: Path) -> None:
    parameters = {"seed": {"min": 1, "max": 3}, "loss.lmbda": {"values": [0.01, 0.02]}}
    runs = grid_runs(small(tmp_path, parameters=parameters))
    assert [tuple(run.values.values()) for run in runs] == list(product((1, 2, 3), (0.01, 0.02)))
    for cap in range(1, 8):
        assert grid_runs(small(tmp_path, parameters=parameters, run_cap=cap)) == runs[:cap]


def test_the_grid_stops_at_the_cap(tmp_path: Path) -> None:
    assert len(grid_runs(small(tmp_path, run_cap=1))) == 1


def test_a_run_equals_its_loaded_arguments(tmp_path: Path) -> None:
    run = make_run(small(tmp_path), {"loss.lmbda": 0.5}, ["seed=3"])
    assert isinstance(run, SweepRun)
    assert load_config(*run.arguments) == run.config
    assert (run.config.loss.lmbda, run.config.seed) == (0.5, 3)


def test_the_best_run_is_that_of_the_goal(tmp_path: Path) -> None:
    sweep = small(tmp_path, parameters={"loss.lmbda": {"values": [0.01, 0.02, 0.03]}})
    for goal, number in (("minimize", 1), ("maximize", 0)):
        metric = SweepMetric("val/loss", goal, 2.0)  # type: ignore[arg-type]
        rows = entries(sweep, 3.0, 1.0, None)
        assert best_entry(rows, metric) is rows[number]
        assert has_reached_target(rows, metric)
        assert not has_reached_target(rows, metric._replace(target=0.5 if goal == "minimize" else 3.5))
    assert best_entry(entries(sweep, None, None, None), sweep.metric) is None


def test_overrides_that_conflict_with_the_file_are_refused(tmp_path: Path) -> None:
    sweep = small(tmp_path)
    with pytest.raises(SweepError, match=r"loss\.lmbda=1: is swept by"):
        check_sweep(sweep, ["loss.lmbda=1"])
    with pytest.raises(SweepError, match=r"no such setting; did you mean loss\.lmbda"):
        check_sweep(sweep, ["loss.lamda=1"])
    with pytest.raises(SweepError, match="output_dir must be the same"):
        check_sweep(sweep, ["output_dir=runs/${loss.lmbda}"])
