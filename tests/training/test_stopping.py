"""Runs are stopped by signals, by the time of their session, or by an error in the middle of a validation."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jahp_pl.config import Config
from jahp_pl.data.pipeline import ValImage
from jahp_pl.model_io.checkpoint import RunCounters, read_checkpoint
from jahp_pl.settings import load_config
from jahp_pl.training import run as training
from jahp_pl.training.checkpoints import BestAndLast
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import TrainResult, train
from jahp_pl.training.stopping import Stopped
from tests.support import commands
from tests.support.launching import JAHP, has_logged, settings_of, started, wait_until
from tests.support.tiny_runs import NOTHING_CODED, rows, tiny_config, training_losses

pytestmark = pytest.mark.usefixtures("one_thread")
AS_FINISHED = (*NOTHING_CODED, "optim.ema_decay=0.9")
"""Settings of the run that `finished` made without interruption."""
Act = Callable[[], None]


class BrokenError(Exception):
    """Unexpected error."""


def fail() -> None:
    raise BrokenError


def sent(number: signal.Signals) -> Act:
    return lambda: os.kill(os.getpid(), number)


def acting(monkeypatch: pytest.MonkeyPatch, act: Act, training_step: int = 0, validation_step: int = 0) -> None:
    """Make the next run call `act` before one step, and at the second image of the validation after another step."""

    class Acting(CompressionModule):
        def training_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
            if self.global_step + 1 == training_step:
                act()
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: ValImage, batch_idx: int, dataloader_idx: int = 0) -> None:
            if (self.global_step, batch_idx) == (validation_step, 1):
                act()
            super().validation_step(batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(training, "CompressionModule", Acting)


def validations(result: TrainResult) -> list[dict[str, str]]:
    return [row for row in rows(result) if row["val/loss"]]


# Signals --------------------------------------------------------------------------------------------------------------


def test_a_signal_to_all_processes_of_a_run_saves_and_the_run_continues_from_there(
    shards: Path, tmp_path: Path
) -> None:
    """As on a cluster, data workers receive it too, but still deliver the batches that the step needs."""
    settings = ("trainer.max_steps=100000", "trainer.val_every_steps=100000", "data.num_workers=1")
    config = tiny_config(tmp_path, shards, *settings)
    with started([*JAHP, "train", settings_of(config)]) as process:
        wait_until(has_logged(config, 4), process)
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    steps = read_checkpoint(config.run_dir / "checkpoints" / "last.ckpt")["global_step"]
    assert steps >= 4
    assert process.returncode == 128 + signal.SIGTERM
    assert f"joint: stopped after step {steps} (SIGTERM); run the same command again to continue" in output
    assert "Traceback" not in output
    assert not list(config.run_dir.rglob("*.part"))
    more = tiny_config(tmp_path, shards, f"trainer.max_steps={steps + 2}", *NOTHING_CODED)
    assert train(more).steps == steps + 2


def test_ctrl_c_once_finishes_the_step_and_saves(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, shards, *AS_FINISHED)
    before = signal.getsignal(signal.SIGINT)
    acting(monkeypatch, sent(signal.SIGINT), training_step=3)
    with pytest.raises(Stopped) as stop:
        train(config)
    assert stop.value.code == 130
    assert read_checkpoint(config.run_dir / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_twice_does_not_wait_for_the_end_of_the_step(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, shards, *AS_FINISHED)

    def interrupt_twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    acting(monkeypatch, interrupt_twice, training_step=3)
    with pytest.raises(KeyboardInterrupt):
        train(config)


def test_closing_the_terminal_saves_unless_the_run_is_to_outlive_it(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, shards, *AS_FINISHED)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with monkeypatch.context() as patch:
            acting(patch, sent(signal.SIGHUP), training_step=3)
            assert train(config).steps == 8
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        other = tiny_config(tmp_path, shards, *AS_FINISHED, "name=closed")
        acting(monkeypatch, sent(signal.SIGHUP), training_step=3)
        with pytest.raises(Stopped) as stop:
            train(other)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (stop.value.code, stop.value.step) == (128 + signal.SIGHUP, 3)


def test_the_warning_of_a_slurm_job_saves_the_run_and_leaves_no_other_checkpoint(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would save in the middle of a step, requeue the job, and resume from its own file."""
    for name, value in {
        "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NAME": "training", "SLURM_JOB_ID": "4711",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    config = tiny_config(tmp_path, shards, *AS_FINISHED)
    foreign = config.run_dir / "hpc_ckpt_1.ckpt"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"not ours")
    with monkeypatch.context() as patch:
        acting(patch, sent(signal.SIGUSR1), training_step=3)
        with pytest.raises(Stopped) as stop:
            train(config)
    assert stop.value.code == 128 + signal.SIGUSR1
    assert stop.value.step == 3
    assert foreign.read_bytes() == b"not ours"
    assert {path.name for path in config.run_dir.rglob("*.ckpt")} == {foreign.name, "last.ckpt"}
    result = train(config)
    assert result.steps == 8
    assert [step for step, _ in training_losses(result)] == ["2", "4", "6", "8"]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, "what was before is put back"


# The time of a session ------------------------------------------------------------------------------------------------


def test_every_session_of_limited_time_trains_on_without_annealing(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("trainer.session_time=00:00:00:01", "trainer.max_steps=1000000", "trainer.val_every_steps=100000")
    config = tiny_config(
        tmp_path, shards, *NOTHING_CODED, "optim.schedule=cosine", *limits, "trainer.log_every_steps=1"
    )
    last, steps = config.run_dir / "checkpoints" / "last.ckpt", [0]
    for _ in range(2):
        assert commands.run("train", settings_of(config)) == 0
        shown = capsys.readouterr()
        steps.append(read_checkpoint(last)["global_step"])
        reason = "time limit trainer.session_time=00:00:00:01"
        assert f"joint: stopped after step {steps[-1]} ({reason}); run the same command again to continue" in shown.err
        assert "trained: " not in shown.out
    assert steps == sorted(set(steps))
    logged = (config.run_dir / "metrics.csv").read_text().splitlines()
    rate = logged[0].split(",").index("train/learning_rate")
    assert float(logged[-1].split(",")[rate]) == pytest.approx(1e-3, rel=1e-4)
    assert "val/loss" not in logged[0]

    ending = load_config(str(settings_of(config)), f"trainer.max_steps={steps[-1] + 1}", "trainer.session_time=null")
    assert train(ending).steps == steps[-1] + 1


# In the middle of a validation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [fail, sent(signal.SIGTERM)], ids=["an error", "SIGTERM"])
@pytest.mark.parametrize("step", [4, 8])
def test_an_interrupted_validation_is_repeated_and_costs_no_step(
    act: Act, step: int, shards: Path, tmp_path: Path, finished: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, shards, *AS_FINISHED)
    with monkeypatch.context() as patch:
        acting(patch, act, validation_step=step)
        with pytest.raises((BrokenError, Stopped)):
            train(config)
    saved = read_checkpoint(config.run_dir / "checkpoints" / "last.ckpt")
    assert saved["global_step"] == step
    assert RunCounters.read(saved).validation_due
    result = train(config)
    assert [row["step"] for row in validations(result)] == ["4", "8"]
    assert [at for at, _ in training_losses(result)] == ["2", "4", "6", "8"]
    number = step // 4 - 1
    made_again, before = validations(result)[number], validations(finished)[number]
    assert {name: value for name, value in made_again.items() if name.startswith("val/")} == {
        name: value for name, value in before.items() if name.startswith("val/")
    }
    if step == 8:
        assert result.metrics == finished.metrics
    assert not RunCounters.read(read_checkpoint(result.last)).validation_due
    assert train(config) == result._replace(was_finished=True)


def test_an_interrupted_final_validation_is_repeated_too(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, shards, *AS_FINISHED, "trainer.max_steps=6")
    with monkeypatch.context() as patch:
        acting(patch, fail, validation_step=6)
        with pytest.raises(BrokenError):
            train(config)
    result = train(config)
    assert result.steps == 6
    assert [row["step"] for row in validations(result)] == ["4", "6"]
    assert result.metrics["val/images"] == 3


def test_rows_of_a_repeated_validation_are_not_kept_twice(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is interrupted after the validation has written its rows and before the checkpoint is saved."""

    def broken(self: object, trainer: object, module: object) -> None:
        raise BrokenError

    config: Config = tiny_config(tmp_path, shards, *AS_FINISHED)
    with monkeypatch.context() as patch:
        patch.setattr(BestAndLast, "on_validation_end", broken)
        with pytest.raises(BrokenError):
            train(config)
    assert "\n4," in (config.run_dir / "metrics.csv").read_text()
    result = train(config)
    assert [row["step"] for row in validations(result)] == ["4", "8"]
    assert [step for step, _ in training_losses(result)] == ["2", "4", "6", "8"]
