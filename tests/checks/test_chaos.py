"""A training run is killed and resumed three times; `make chaos` does it twenty times."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.chaos.checks import faults_of_finished, judge, read_state
from checks.chaos.run import SETTINGS, chaos
from jahp_pl.settings import load_config


@pytest.mark.slow
def test_a_repeatedly_killed_run_ends_like_others(tmp_path: Path) -> None:
    report = chaos(tmp_path, kills=3, others=2, steps=32, val_every=4, seed=5, quiet=True)
    assert report["failures"] == []
    assert report["final"]["loss"] == pytest.approx(
        report["final"]["mean"], rel=0.05
    )  # two other runs are too few for an interval
    assert report["kills"] == len(report["sessions"]) >= 2, "one may come too late on a busy machine"
    assert report["leftovers"]["largest"] <= 3

    # Failures are detected.
    where = (f"output_dir={tmp_path / 'runs'}", f"data.train=[{tmp_path / 'train'}]", f"data.val=[{tmp_path / 'val'}]")
    config = load_config(*SETTINGS, *where, "name=killed", "trainer.max_steps=32", "trainer.val_every_steps=4")
    assert faults_of_finished(config) == []
    path = config.run_dir / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))
    (config.run_dir / ".metrics.csv.12.part").touch()
    last = config.run_dir / "checkpoints" / "last-1.ckpt"
    content = last.read_bytes()
    last.unlink()  # others may be links to it
    last.write_bytes(content[: len(content) // 2])
    faults = " | ".join(faults_of_finished(config))
    assert "at steps" in faults
    assert "temporary files are left" in faults
    assert "last-1.ckpt: is not a checkpoint, or is cut short" in faults
    assert read_state(config).step == 32


def test_a_loss_is_compared_with_the_spread_of_other_runs() -> None:
    others = [1.0, 1.1, 1.2]  # mean 1.1, standard deviation 0.1: 1.1 +- 4.303 * 0.1 * sqrt(4 / 3)
    judged = judge(1.55, others)
    assert judged["interval_of_95_percent"] == pytest.approx([1.1 - 0.49687, 1.1 + 0.49687], abs=1e-4)
    assert judged["inside"]
    assert not judged["between_lowest_and_highest"]
    assert not judge(1.65, others)["inside"]
    assert not judge(0.55, others)["inside"]
