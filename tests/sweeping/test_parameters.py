"""Values of a swept setting are listed and drawn as its keywords say."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jahp_pl.sweeping.file import read_sweep
from jahp_pl.sweeping.parameters import Parameter
from jahp_pl.sweeping.parse_parameters import parse_parameter
from jahp_pl.sweeping.runs import grid_runs, random_runs
from tests.support.sweep_files import small, write


def listed(parameter: Parameter) -> list[Any]:
    return [parameter.nth(index) for index in range(parameter.num_values or 0)]


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
    drawn_seeds = {run.config.seed for run in random_runs(read_sweep(path))}
    assert len(drawn_seeds) == 3
    assert max(drawn_seeds) > 2**24
    assert [run.config.seed for run in grid_runs(small(tmp_path, run_cap=2, parameters=seeds))] == [0, 1]
