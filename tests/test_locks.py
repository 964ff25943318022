"""What one process has for itself, and gives back however it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jahp_pl.files import WriteError
from jahp_pl.locks import exclusive


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


def test_a_writer_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from jahp_pl.locks import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False, timeout=60)
    assert [one.name for one in tmp_path.iterdir()] == [".x.lock"]
    with exclusive(tmp_path / "x"):
        pass
    assert [one.name for one in tmp_path.iterdir()] == []
