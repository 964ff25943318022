"""Real runs of `jahp sweep`: processes that train, are killed, resume, fail and search."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jahp_pl.model_io.checkpoint import read_checkpoint
from jahp_pl.settings import load_config
from jahp_pl.training.metric_names import logged_names
from tests.support.commands import run

TINY = (
    *("model.num_filters=4", "model.num_latents=6", "data.crop_size=32", "data.batch_size=1", "data.num_workers=0"),
    *("data.max_val_images=1", "trainer.accelerator=cpu", "coding.max_pictures=0", "trainer.precision=32-true"),
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def write(folder: Path, shards: Path, parameters: dict[str, Any], **more: Any) -> tuple[Path, list[str]]:
    """Write a sweep file for a tiny model, and return the arguments that put its runs into `folder`/runs."""
    command = ["python", "-m", "jahp_pl", "train", f"data.train=[{shards / 'train'}]", f"data.val=[{shards / 'val'}]"]
    content = {"method": "grid", "metric": {"name": "val/loss"}, "parameters": parameters, **more}
    content["command"] = [*command, *TINY, "${args_no_hyphens}"]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path, [f"output_dir={folder / 'runs'}"]


def stored_runs(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs" / "tiny.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())["points"] if path.exists() else []
    return found


def steps_of(folder: Path, name: str) -> int:
    path = folder / "runs" / name / "checkpoints" / "last.ckpt"
    return int(read_checkpoint(path)["global_step"]) if path.exists() else 0


def columns(folder: Path, name: str) -> set[str]:
    with (folder / "runs" / name / "metrics.csv").open() as file:
        return set(next(csv.reader(file))) - {"step"}


def test_a_killed_sweep_continues_and_repeats_nothing(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, where = write(tmp_path, shards, {"loss.lmbda": {"values": [0.01, 0.02]}})
    first, second = "tiny-lmbda0.01", "tiny-lmbda0.02"
    settings = [*where, "trainer.max_steps=16", "trainer.val_every_steps=4", "trainer.log_every_steps=2"]
    settings += ["coding.max_images=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jahp_pl", "sweep", str(path), *settings], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not steps_of(tmp_path, second):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 4 <= steps_of(tmp_path, second) < 16
    assert [entry["state"] for entry in stored_runs(tmp_path)] == ["done", "running"]

    last = tmp_path / "runs" / first / "checkpoints" / "last.ckpt"
    before, log = last.stat(), (last.parents[1] / "log.txt").read_bytes()
    killed_at = steps_of(tmp_path, second)
    assert run("sweep", path, *settings) == 0
    assert last.stat() == before
    assert (last.parents[1] / "log.txt").read_bytes() == log
    assert f"steps {killed_at} to 16" in (tmp_path / "runs" / second / "log.txt").read_text()
    assert steps_of(tmp_path, second) == 16
    assert [(entry["state"], entry["steps"]) for entry in stored_runs(tmp_path)] == [("done", 16)] * 2
    for entry in stored_runs(tmp_path):
        saved = read_checkpoint(Path(entry["run_dir"]) / "checkpoints" / "last.ckpt")
        metrics = next(value["metrics"] for value in saved["callbacks"].values() if "metrics" in value)
        assert entry["metrics"]["val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-6)
    assert columns(tmp_path, first) == set(logged_names(load_config(*TINY, "data.val=[x]")))
    assert f"{first}: done" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep of two runs."""
    folder = tmp_path_factory.mktemp("trained")
    path, where = write(folder, shards, LMBDAS)
    assert run("sweep", path, *where, *SHORT) == 0
    return folder


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


LMBDAS = {"loss.lmbda": {"values": [0.01, 0.02]}}
MORE = {"loss.lmbda": {"values": [0.005, 0.01, 0.02]}}
SHORT = ("trainer.max_steps=2", "trainer.val_every_steps=2", "trainer.log_every_steps=1", "coding.max_images=0")


def figures(folder: Path) -> list[tuple[Any, ...]]:
    return [(p["name"], p["state"], p["steps"], p["seconds"], p["metrics"]) for p in stored_runs(folder)]


def test_an_interrupted_sweep_keeps_its_results_and_excludes_other_writers(
    shards: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, results = figures(finished), finished / "runs" / "tiny.json"
    path, where = write(finished, shards, MORE)
    process = subprocess.Popen(
        [sys.executable, "-m", "jahp_pl", "sweep", str(path), *where, *SHORT],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        table = results.with_suffix(".csv")  # written after the JSON
        while len(stored_runs(finished)) < 3 or ",running," not in table.read_text():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        assert figures(finished)[1:] == done
        before = results.read_bytes(), table.read_bytes()
        assert run("sweep", path, *where, *SHORT) == 2
        assert capsys.readouterr().err == (
            f"jahp: {finished / 'runs'}: another sweep of tiny is running here; wait for it, use --workers N there, or "
            "choose another output_dir=...\n"
        )
        assert (results.read_bytes(), table.read_bytes()) == before
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert run("sweep", path, *where, *SHORT) == 0  # a killed sweep locks nothing
    assert figures(finished)[1:] == done
    assert stored_runs(finished)[0]["state"] == "done"


def test_a_terminated_sweep_writes_its_results(shards: Path, finished: Path) -> None:
    done = figures(finished)
    path, where = write(finished, shards, MORE)
    process = subprocess.Popen(
        [sys.executable, "-m", "jahp_pl", "sweep", str(path), *where, *SHORT],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 120
    while len(stored_runs(finished)) < 3 or stored_runs(finished)[0]["state"] != "running":
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 130
    assert figures(finished)[1:] == done
    assert stored_runs(finished)[0]["state"] == "waiting"


def test_runs_of_other_settings_are_refused_and_their_figures_kept(
    shards: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, results = figures(finished), finished / "runs" / "tiny.json"
    before = results.read_bytes(), results.with_suffix(".csv").read_bytes()
    path, where = write(finished, shards, LMBDAS)
    assert run("sweep", path, *where, *SHORT, "optim.learning_rate=0.01") == 2
    last = finished / "runs" / "tiny-lmbda0.01" / "checkpoints" / "last.ckpt"
    assert capsys.readouterr().err == (
        f"jahp: no run of {path} can be resumed: {last}: was trained with optim.learning_rate=0.0001 instead of "
        "0.01; delete its folder, or choose another output_dir=...\n"
    )
    assert (results.read_bytes(), results.with_suffix(".csv").read_bytes()) == before

    path, where = write(finished, shards, MORE)
    assert run("sweep", path, *where, *SHORT, "optim.learning_rate=0.01") == 2
    error = capsys.readouterr().err
    assert error.endswith("jahp: sweep: 2 of 3 runs failed, see above; the same command tries them again\n")
    new, *refused = figures(finished)
    assert new[1:3] == ("done", 2)
    assert refused == [(name, "failed", *known) for name, _, *known in done]
    assert "was trained with optim.learning_rate=0.0001 instead of 0.01" in stored_runs(finished)[1]["error"]


def test_a_run_that_fails_is_reported_with_its_log_and_the_others_continue(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [[str(tmp_path / "nowhere")], [str(shards / "train")]]
    path, where = write(tmp_path, shards, {"data.train": {"values": folders}}, metric={"name": "val/bpp"})
    settings = ["trainer.max_steps=1", "loss.distortion=ms_ssim", "data.crop_size=176", "coding.max_images=0"]
    settings += ["trainer.log_every_steps=1", "trainer.val_every_steps=1", *where]
    assert run("sweep", path, "--workers", "2", *settings) == 2
    bad, good = stored_runs(tmp_path)
    assert (bad["state"], good["state"]) == ("failed", "done")
    assert "nowhere" in bad["error"]
    error = capsys.readouterr().err
    assert f"  | jahp: {bad['error']}" in error
    assert error.endswith("jahp: sweep: 1 of 2 runs failed, see above; the same command tries them again\n")
    with (tmp_path / "runs" / "tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["state"], bool(row["val/bpp"])) for row in rows] == [("failed", False), ("done", True)]
    assert columns(tmp_path, good["name"]) == set(logged_names(load_config(*settings, "data.val=[x]")))


def test_bayes_proposes_all_runs_and_repeats_none(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    rates = {"distribution": "log_uniform_values", "min": 1.0e-5, "max": 1.0e-2}
    path, where = write(
        tmp_path, shards, {"optim.learning_rate": rates}, method="bayes", run_cap=3, metric={"name": "train/loss"}
    )
    where += ["data.val=[]", "trainer.max_steps=2", "trainer.log_every_steps=1"]
    assert run("sweep", path, *where) == 0
    found = stored_runs(tmp_path)
    assert [entry["state"] for entry in found] == ["done"] * 3
    assert len({entry["values"]["optim.learning_rate"] for entry in found}) == 3
    losses = {entry["name"]: entry["metrics"]["train/loss"] for entry in found}
    content = json.loads((tmp_path / "runs" / "tiny.json").read_text())
    assert content["best"] == min(losses, key=lambda name: losses[name])
    assert run("sweep", path, *where) == 0
    assert stored_runs(tmp_path) == found


def test_two_processes_never_train_in_one_folder(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, where = write(tmp_path, shards, {"loss.lmbda": {"values": [0.01]}})
    folder = tmp_path / "runs" / "tiny-lmbda0.01"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run("sweep", path, *where, "trainer.max_steps=1") == 2
    assert "another process is training there" in capsys.readouterr().err
    assert stored_runs(tmp_path)[0]["state"] == "failed"


def test_a_damaged_checkpoint_is_a_failed_run(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, where = write(tmp_path, shards, {"loss.lmbda": {"values": [0.01]}})
    last = tmp_path / "runs" / "tiny-lmbda0.01" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"PK")
    assert run("sweep", path, *where) == 2
    assert "last.ckpt: is not a checkpoint, or is cut short" in capsys.readouterr().err
    assert last.read_bytes() == b"PK"
