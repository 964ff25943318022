"""docs/scaling.md and docs/slurm.sh are correct: `jahp train` accepts each of their commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from jahp_pl.config import Config
from jahp_pl.settings import load_config
from tests.support import pages

ROOT = pages.ROOT
PAGE, JOB = pages.read("scaling"), pages.DOCS / "slurm.sh"
COMMANDS = pages.commands(PAGE)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which srun and scontrol record their arguments; srun exits with the status in `STATUS`."""
    note = f'#!/bin/bash\nprintf "%s\\n" "$0" "$@" >> {tmp_path}/calls\n'
    for name, end in (("srun", "exit ${STATUS:-0}\n"), ("scontrol", "")):
        (tmp_path / name).write_text(note + end)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in (("NTASKS_PER_NODE", "8"), ("JOB_NUM_NODES", "2"), ("JOB_ID", "4711")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.chdir(ROOT)
    return tmp_path


def settings_of_job(cluster: Path, *arguments: str, status: int = 0) -> list[str]:
    """Return the arguments of `jahp train` in the job script."""
    job = subprocess.run(["bash", JOB, *arguments], env={**os.environ, "STATUS": str(status)}, check=False, timeout=60)
    assert job.returncode == status
    calls = (cluster / "calls").read_text().splitlines()
    return calls[calls.index("train") + 1 :]


def config_of(command: str, cluster: Path) -> Config:
    """Return the configuration that a command of the page would train."""
    words = shlex.split(command)
    if words[0] == "sbatch":
        assert words[1] == "docs/slurm.sh"
        return load_config(*settings_of_job(cluster, *words[2:]))
    start = 0 if words[0] == "jahp" else words.index("jahp_pl")
    assert words[0] in ("jahp", "torchrun")
    assert words[start + 1] == "train"
    return load_config(*words[start + 2 :])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_is_one_that_can_be_trained(command: str, cluster: Path) -> None:
    config = config_of(command, cluster)
    words = shlex.split(command)
    if words[0] == "torchrun":
        assert config.trainer.devices == int(words[words.index("--nproc-per-node") + 1])
        assert config.trainer.num_nodes == (int(words[words.index("--nnodes") + 1]) if "--nnodes" in words else 1)
    if words[0] == "sbatch":
        assert (config.trainer.devices, config.trainer.num_nodes) == (8, 2)


def test_the_page_has_commands_and_its_settings_exist() -> None:
    assert len(COMMANDS) == 6
    config = Config()
    for section, key in re.findall(r"`(data|trainer)\.(\w+)`", PAGE):
        assert hasattr(getattr(config, section), key), key


def test_the_job_script_is_bash_and_asks_for_what_it_trains_with() -> None:
    assert subprocess.run(["bash", "-n", JOB], check=False, timeout=60).returncode == 0
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", JOB.read_text(), flags=re.MULTILINE))
    assert options["gpus-per-node"] == options["ntasks-per-node"]
    assert int(options["cpus-per-task"]) > load_config(str(ROOT / "configs/overlays/ddp8.yaml")).data.num_workers
    assert options["signal"].startswith("USR1@")
    assert "#SBATCH --requeue\n" in JOB.read_text()


@pytest.mark.parametrize(("status", "is_requeued"), [(0, False), (138, True), (143, False), (2, False)])
def test_a_job_requeues_itself_only_where_its_limit_stopped_the_run(
    status: int, is_requeued: bool, cluster: Path
) -> None:
    settings_of_job(cluster, "configs/mbt2018.yaml", status=status)
    calls = (cluster / "calls").read_text()
    assert calls.endswith(f"{cluster}/scontrol\nrequeue\n4711\n") == is_requeued
    assert ("scontrol" in calls) == is_requeued
