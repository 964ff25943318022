"""Training curves are drawn from run folders alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.evaluation import EvaluationError
from jahp_pl.report.training_curves import draw_training, read_series
from jahp_pl.training.run import TrainResult
from tests.support.commands import run


def test_a_run_is_drawn_into_one_figure(finished: TrainResult, tmp_path: Path) -> None:
    paths = draw_training([finished.run_dir], tmp_path)
    assert [path.name for path in paths] == ["training.png", "training.svg"]
    with Image.open(paths[0]) as picture:
        assert picture.width > 1000
    text = paths[1].read_text()
    for words in ("Loss", "Bits per pixel", "PSNR (dB)", "Learning rate", "Gradient norm", "validation"):
        assert f">{words}" in text or f"{words}<" in text, words
    assert "MS-SSIM (dB)" in text  # validation measures it


def test_every_panel_has_ticks_at_whole_steps(finished: TrainResult, tmp_path: Path) -> None:
    text = draw_training([finished.run_dir], tmp_path)[1].read_text()
    panels = text.split("Optimizer step")[:-1]
    assert len(panels) == 6
    for panel in panels:
        axis = panel[panel.rindex('id="matplotlib.axis_') :]
        ticks = re.findall(r"<text[^>]*>([^<]+)</text>", axis)
        assert ticks
        assert all(tick.isdecimal() for tick in ticks), ticks


def test_an_incomplete_last_line_is_ignored(finished: TrainResult, tmp_path: Path) -> None:
    whole = read_series(finished.run_dir)
    assert [step for step, _ in whole["train/loss"]] == [2, 4, 6, 8]
    text = (finished.run_dir / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(f"{text}10,0.5")
    assert read_series(tmp_path) == whole
    (tmp_path / "metrics.csv").write_text(f"{text}10,{'0.50.5,' * text.partition(chr(10))[0].count(',')}\n")
    assert read_series(tmp_path) == whole, "a damaged number"
    (tmp_path / "metrics.csv").write_text("step\n")
    with pytest.raises(EvaluationError, match="no metrics yet"):
        read_series(tmp_path)


def test_values_that_cannot_be_drawn_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss,train/bpp\n1,1e308,3e38\n2,-1e308,-3e38\n3,0.5,1\n")
    assert read_series(tmp_path)["train/loss"] == [(3, 0.5)]
    assert len(read_series(tmp_path)["train/bpp"]) == 3
    assert all(path.is_file() for path in draw_training([tmp_path], tmp_path))


def test_runs_are_drawn_together_but_not_with_results(
    finished: TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", finished.run_dir, finished.run_dir, "-o", tmp_path) == 0
    assert "training.png" in capsys.readouterr().out
    assert run("report", finished.run_dir.parent) == 0
    assert str(finished.run_dir.parent / "training.png") in capsys.readouterr().out
    assert run("report", finished.run_dir, "results/classical") == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert run("report", "results/classical") == 2
    assert "--output" in capsys.readouterr().err


def test_runs_of_one_name_are_told_apart_by_their_paths_whatever_these_are(
    finished: TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / r"$\frac{" / "run", tmp_path / "other$" / "run"]
    for folder in folders:
        folder.mkdir(parents=True)
        shutil.copy(finished.run_dir / "metrics.csv", folder)
    assert run("report", *folders, "-o", tmp_path) == 0, capsys.readouterr().err
    text = (tmp_path / "training.svg").read_text()
    assert all(f"{folder}, training" in text for folder in folders)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", tmp_path / "nope") == 2
    assert f"{tmp_path / 'nope'}: no such file or folder; check the path" in capsys.readouterr().err


def test_a_run_that_has_logged_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("name: begun\n")
    assert run("report", tmp_path) == 2
    assert f"{tmp_path}: is a run folder without metrics.csv" in capsys.readouterr().err
