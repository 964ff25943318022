"""The search of method bayes approaches the optimum, ends, and depends on its history alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from jahp_pl.sweeping.bayes import ScoredRun, propose
from jahp_pl.sweeping.parse_parameters import parse_parameter
from tests.support.commands import run
from tests.support.sweep_files import write


def test_proposals_approach_the_optimum_and_follow_from_the_history_alone() -> None:
    pytest.importorskip("optuna")
    space = [
        parse_parameter("optim.learning_rate", {"distribution": "log_uniform_values", "min": 1.0e-5, "max": 1.0e-1}),
        parse_parameter("model.entropy_model", {"values": ["joint", "context"]}),
        parse_parameter("optim.ema_decay", {"distribution": "q_uniform", "min": 0.0, "max": 0.95, "q": 0.1}),
    ]

    def score(values: dict[str, Any]) -> float:
        import math

        return (math.log10(values["optim.learning_rate"]) + 3) ** 2 + (values["model.entropy_model"] != "joint")

    history: list[ScoredRun] = []
    for number in range(30):
        values = propose(space, history, is_minimum=True)
        assert values is not None
        assert values == propose(space, history, is_minimum=True)
        assert all(parameter.contains(values[parameter.key]) for parameter in space)
        assert values not in [trial.values for trial in history]
        known = None if number % 7 == 3 else score(values)
        history.append(ScoredRun(values, known, is_open=number == 28))
    late = [trial.values for trial in history[15:]]
    assert sum(score(dict(values)) < 0.3 for values in late) >= 8  # random draws would give one in ten


def test_proposals_end_when_a_space_is_exhausted() -> None:
    pytest.importorskip("optuna")
    space = [parse_parameter("model.entropy_model", {"values": ["joint", "context"]})]
    history = [
        ScoredRun({"model.entropy_model": entropy_model}, 1.0, is_open=False) for entropy_model in ("joint", "context")
    ]
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
