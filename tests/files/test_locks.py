"""Locks exclude other processes, and are released however a process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jahp_pl.errors import WriteError
from jahp_pl.files.locks import RUN_LOCK, RUN_LOCK_VARIABLE, exclusive, hold_lock, training_in
from jahp_pl.settings import load_config
from tests.support.launching import JAHP, has_logged, output_of, settings_of, started, wait_until
from tests.support.tiny_runs import NOTHING_CODED, tiny_config


def test_a_file_has_one_writer_at_a_time_and_no_trace_of_it_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x"
    with exclusive(path):
        with pytest.raises(WriteError, match="x: another process is writing it"), exclusive(path):
            pass
        with exclusive(path.with_name("y")):
            pass
    assert [one.name for one in path.parent.iterdir()] == []
    with exclusive(path):
        pass


def test_a_killed_writer_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from jahp_pl.files.locks import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False, timeout=60)
    assert [one.name for one in tmp_path.iterdir()] == [".x.lock"]
    with exclusive(tmp_path / "x"):
        pass
    assert [one.name for one in tmp_path.iterdir()] == []


def test_a_second_training_in_a_run_folder_is_refused_until_the_first_is_gone(shards: Path, tmp_path: Path) -> None:
    """Worker processes, which survive a kill for a while, must not keep the lock."""
    settings = ("data.num_workers=1", "trainer.max_steps=100000", "trainer.val_every_steps=100000", *NOTHING_CODED)
    command = (*JAHP, "train", settings_of(tiny_config(tmp_path, shards, *settings)))
    config = load_config(str(command[-1]))
    with started(command) as first:
        wait_until(has_logged(config, 4), first)
        status, output = output_of(command)
        assert status == 2
        remedy = "wait for it, end it, or choose another name=..."
        assert output.splitlines()[-1] == f"jahp: {config.run_dir}: another process is training there; {remedy}"
        first.kill()
        first.wait()
        with training_in(config.run_dir):  # its workers are still alive
            pass


def test_a_training_takes_over_the_lock_of_the_sweep_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold_lock(tmp_path / RUN_LOCK, "mine") as lock:
        with pytest.raises(WriteError, match="another process is training there"), training_in(tmp_path):
            pass
        monkeypatch.setenv(RUN_LOCK_VARIABLE, str(lock))
        with training_in(tmp_path):
            pass
        with pytest.raises(WriteError), training_in(tmp_path / "other"), training_in(tmp_path / "other"):
            pass


def test_a_lock_without_an_error_message_waits_for_its_holder(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from jahp_pl.files.locks import hold_lock\n"
        "with hold_lock(pathlib.Path(sys.argv[1])):\n"
        "    print(flush=True)\n"
        "    time.sleep(1)\n"
        "    pathlib.Path(sys.argv[1]).write_text('done')\n"
    )
    lock = tmp_path / "x.lock"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with hold_lock(lock):
            assert lock.read_text() == "done"
