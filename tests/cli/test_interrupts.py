"""An interrupt ends a command with one line and status 130, from its first imports to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {"module": [sys.executable, "-m", "jahp_pl"], "script": [str(Path(sys.executable).with_name("jahp"))]}


def interrupted(command: list[str], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `jahp --help` in a process that runs `code` at its start; there, `interrupt` interrupts the process."""
    head = "import os, signal, sys\ndef interrupt(): os.kill(os.getpid(), signal.SIGINT)\n"
    (folder / "sitecustomize.py").write_text(head + code)
    if not Path(command[0]).exists():
        pytest.skip("the package is not installed")
    return subprocess.run(
        [*command, "--help"],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, timeout=120, check=False,
        # As from a terminal: a job in the background ignores SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "module",
    [
        *("threading", "jahp_pl.cli.interrupts", "argparse"),
        *("jahp_pl.cli.output", "jahp_pl.config", "jahp_pl.cli.info"),
    ],
)
def test_an_interrupt_while_a_command_starts_shows_no_traceback(command: str, module: str, tmp_path: Path) -> None:
    code = (
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: interrupt()\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = interrupted(COMMANDS[command], code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "jahp: interrupted\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_while_a_process_ends_shows_no_traceback(command: str, tmp_path: Path) -> None:
    done = interrupted(COMMANDS[command], "import atexit\natexit.register(interrupt)\n", tmp_path)
    assert done.returncode in (-signal.SIGINT, 0)
    assert done.stdout.startswith("usage: jahp")
    assert done.stderr == ""


def test_importing_the_package_leaves_interrupts_alone() -> None:
    code = (
        "import signal, jahp_pl, jahp_pl.cli.main\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
