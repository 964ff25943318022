"""Results of a sweep are read back as they were written, and other files are never overwritten."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from jahp_pl.files.atomic import write_atomically
from jahp_pl.sweeping.results import read_sweep_results, write_sweep_results
from tests.support.commands import run
from tests.support.permissions import forbid
from tests.support.sweep_files import entries, small, write

RESULTS = '{"sweep": "a", "points": [{"name": "b", "values": {}, "steps": %s, "seconds": %s, "metrics": {%s}}]}'


def test_results_are_read_back_and_their_csv_has_a_row_for_each_run(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_results_that_may_not_be_read_are_not_called_foreign(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.json"
    write_sweep_results(path, small(tmp_path), entries(small(tmp_path), 3.0, 2.0))
    forbid(monkeypatch, path.with_suffix(suffix))
    with pytest.raises(PermissionError):
        read_sweep_results(path)


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
        f"jahp: {path}: has small-lmbda0.02, which is not a run of {other}; move it away, or choose another "
        "output_dir=...\n"
    )
    assert (path.read_bytes(), path.with_suffix(".csv").read_bytes()) == before


@pytest.mark.parametrize("method", ["grid", "random"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("small.json", "{}"), ("small.json", "[1, 2"), ("small.json", '{"points": []}'), ("small.json", "[" * 100_000),
        ("small.json", '{"sweep": "a", "points": [{"name": "b"}]}'), ("small.json", '{"sweep": "a", "points": [3]}'),
        ("small.json", RESULTS % ("true", "1", "")), ("small.json", RESULTS % ("1", "NaN", "")),
        ("small.json", RESULTS % ("1", "1", '"step": Infinity')),
        ("small.json", RESULTS % ("1", "1", f'"a": {10**400}')),
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
