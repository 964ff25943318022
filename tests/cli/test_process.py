"""The process of a command: what it imports, how its threads wait, and how signals, locales and lost folders end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jahp_pl.cli.process import WAIT_VARIABLES
from tests.support import ROOT


def test_help_is_fast_because_it_imports_nothing_heavy():
    script = "import sys; from jahp_pl.cli.command_line import _parser; _parser(); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "lightning", "wandb", "omegaconf", "webdataset", "matplotlib", "numpy"):
        assert f"'{heavy}'" not in modules


def test_info_of_a_file_is_fast_because_it_imports_nothing_heavy():
    script = "import sys; from jahp_pl.cli.main import main; main(['info', sys.argv[1]]); print(sorted(sys.modules))"
    words = [sys.executable, "-c", script, str(ROOT / "tests" / "golden" / "joint.jahp")]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "sRGB" in shown
    for heavy in ("torch", "numpy", "PIL"):
        assert f"'{heavy}'" not in shown


def test_a_deleted_working_folder_is_reported_in_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    code = "import os; os.rmdir(os.getcwd()); from jahp_pl.cli.main import main; main(['compress', '/nowhere.png'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "gone",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "jahp: the working folder was deleted; change to another one with cd\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "1000"}, "None")],
    ids=["by default", "by its policy", "by a count"],
)
def test_threads_wait_passively_before_torch_is_there_unless_the_user_decides(given, expected):
    script = """
import os, sys
from jahp_pl.cli import info, main
info.info = lambda arguments: print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
main.main(["info"])
"""
    ours = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**ours, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected, "False"]


def test_no_garbage_is_collected_while_modules_are_imported_or_at_exit():
    script = """
import gc
collections = []
gc.callbacks.append(lambda phase, _: collections.append(phase))
from jahp_pl.cli import decompress, main
from jahp_pl.cli.codecs import open_any_codec
def run(arguments):
    before = len(collections)
    open_any_codec(arguments)
    print(len(collections) - before, gc.isenabled(), len(gc.get_objects()) < gc.get_freeze_count() / 10)
decompress.decompress = run
main.main(["decompress", "photo.jahp"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "True"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_an_import_ends_the_process_at_once(name: str, tmp_path: Path) -> None:
    """Libraries that are imported may swallow exceptions, as this module does, and stay broken."""
    kill = f"os.kill(os.getpid(), signal.{name})"
    code = f"import os, signal\ntry:\n    {kill}\nexcept BaseException:\n    print('swallowed')"
    (tmp_path / "swallowing.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "jahp_pl", "info", "--import", str(tmp_path / "swallowing.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # As from a terminal: a job in the background ignores SIGINT.
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),
    )
    assert done.returncode == 128 + getattr(signal, name)
    assert done.stdout == ""
    assert done.stderr == ("jahp: interrupted\n" if name == "SIGINT" else "")


def test_a_locale_without_umlauts_reads_files_and_refuses_names_that_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_bytes((ROOT / "sweeps" / "lambda.yaml").read_bytes() + "# für später\n".encode())
    (tmp_path / "named.yaml").write_text("name: später\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}

    def run_there(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jahp_pl", *words]
        environment = {**os.environ, **ascii_only}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    listed = run_there("sweep", str(tmp_path / "sweep.yaml"), "--list", "data.train=[x]", "data.val=[y]")
    assert (listed.returncode, listed.stderr) == (0, "")
    refused = run_there("train", str(tmp_path / "named.yaml"), f"output_dir={tmp_path}", "trainer.accelerator=cpu")
    assert refused.returncode == 2
    assert refused.stderr.endswith("cannot be printed in the encoding of this locale; set LC_ALL=C.UTF-8\n")
    assert refused.stderr.count("\n") == 1
