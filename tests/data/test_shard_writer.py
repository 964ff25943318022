"""Shards are written all or none: nothing of others is lost, and nothing incomplete stays."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jahp_pl.data.index import DataError
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from tests.support.photo_shards import PHOTOS


def test_only_existing_shards_are_replaced_and_only_with_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_shards([PHOTOS / "val"], out, ShardOptions(shard_samples=1))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match="already contains shards"):
        write_shards([PHOTOS / "val"], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    write_shards([PHOTOS / "val"], out, overwrite=True)
    assert {path.name for path in out.iterdir()} == {"index.json", "shard-000000.tar"}
    (out / "diary.txt").write_text("mine")
    with pytest.raises(DataError, match="files other than shards"):
        write_shards([PHOTOS / "val"], out, overwrite=True)
    assert (out / "diary.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupt_leaves_nothing_behind_and_the_old_shards_in_place(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards([PHOTOS / "val"], tmp_path / "out", progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    write_shards([PHOTOS / "val"], tmp_path / "out", ShardOptions(shard_samples=1))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_shards([PHOTOS / "val"], tmp_path / "out", overwrite=True, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_interrupt_while_processes_are_started_is_not_lost(tmp_path: Path) -> None:
    """Python ignores exceptions of fork hooks, such as those of logging, where a signal handler may run."""
    code = (
        "import os, signal, sys\n"
        "from jahp_pl.data.shards import write_shards\n"
        "def interrupt(): os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.register_at_fork(after_in_parent=interrupt, after_in_child=interrupt)\n"
        "write_shards([sys.argv[1]], sys.argv[2], workers=2)\n"
    )
    command = [sys.executable, "-c", code, str(PHOTOS / "val"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.count("Traceback") == 1  # no worker shows another one
    assert list(tmp_path.iterdir()) == []


WRITE = """
import sys
from jahp_pl.data.index import DataError
from jahp_pl.data.shards import write_shards
try:
    write_shards([sys.argv[1]], sys.argv[2])
except DataError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """The file system has 2 MB, in its own namespace; the photographs take 7 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=2m tmpfs "{disk}" || exit 77; "$@"; code=$?; ls -A "{disk}"; exit $code'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", WRITE]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    done = subprocess.run([*command, PHOTOS / "train", disk / "out"], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        pytest.skip("may not mount a file system here")
    assert done.returncode == 2
    assert done.stderr == ""
    assert done.stdout == (
        f"{disk}/out: cannot be written (No space left on device); free some space or choose another folder\n"
    )


def test_a_limit_on_file_sizes_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE, PHOTOS / "train", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert done.returncode == 2
    assert done.stdout.endswith("cannot be written (File too large); free some space or choose another folder\n")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
