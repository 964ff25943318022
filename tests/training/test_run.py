"""Whole runs of `train` on shards of real photographs, and the files they leave."""

from __future__ import annotations

import errno
import io
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import Callback, seed_everything

from jahp_pl.bfloat16 import prefers_bfloat16
from jahp_pl.config import Config, to_dict
from jahp_pl.data.index import DataError
from jahp_pl.data.module import ShardDataModule
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.errors import JahpError
from jahp_pl.model_io.checkpoint import load_checkpoint_model, read_checkpoint
from jahp_pl.settings import load_config
from jahp_pl.training import TrainingError
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.progress import ProgressLine
from jahp_pl.training.run import TrainResult, choose_precision, train
from jahp_pl.training.step_means import TrainingRow
from jahp_pl.training.validation import RowMeans, ValidationRow, measure_image
from tests.support.tiny_runs import NOTHING_CODED, PHOTOS, all_equal, rows, tiny_config, training_losses

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_run_folder_holds_the_configuration_of_the_run(finished: TrainResult, shards: Path) -> None:
    config = load_config(str(finished.run_dir / "config.yaml"))
    assert config == tiny_config(finished.run_dir.parent, shards, *NOTHING_CODED, "optim.ema_decay=0.9")
    assert yaml.safe_load((finished.run_dir / "config.yaml").read_text()) == to_dict(config)


def test_metrics_are_written_by_optimizer_steps(finished: TrainResult) -> None:
    assert [step for step, _ in training_losses(finished)] == ["2", "4", "6", "8"]
    validated = [row for row in rows(finished) if row["val/loss"]]
    assert [row["step"] for row in validated] == ["4", "8"]
    assert [row["val/images"] for row in validated] == ["3", "3"]
    for name in ("bpp", "bpp_y", "bpp_z", "mse", "psnr", "learning_rate", "grad_norm", "seconds_per_step"):
        assert all(float(row[f"train/{name}"]) > 0 for row in rows(finished) if row["train/loss"])


def test_the_result_is_that_of_the_last_validation(finished: TrainResult) -> None:
    last = [row for row in rows(finished) if row["val/loss"]][-1]
    for name in ("val/loss", "val/bpp", "val/psnr"):
        assert finished.metrics[name] == pytest.approx(float(last[name]), rel=1e-5)
    assert finished.steps == 8
    assert finished.skipped_steps == 0
    assert finished.seconds > 0


def test_the_loaded_model_is_the_one_that_was_validated(finished: TrainResult, shards: Path) -> None:
    model = load_checkpoint_model(finished.last)
    expected = finished.metrics["val/bpp"]
    assert validate(model, load_config(str(finished.run_dir / "config.yaml"))).bpp == pytest.approx(expected, rel=1e-5)
    trained = load_checkpoint_model(finished.last, average=False)
    assert not all_equal(list(model.parameters()), list(trained.parameters()))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def validate(model: torch.nn.Module, config: Config) -> ValidationRow:
    means = RowMeans(ValidationRow)
    for image in ShardDataModule(config.data, config.seed).val_dataloader():
        means.update(measure_image(model, config.loss, image.image))  # type: ignore[arg-type]
    return means.compute()[0]


def test_a_run_without_validation_saves_by_steps(shards: Path, tmp_path: Path) -> None:
    result = train(tiny_config(tmp_path, shards, "data.val=[]", "trainer.max_steps=6"))
    assert (result.best, result.metrics, result.steps) == (None, {}, 6)
    assert read_checkpoint(result.last)["global_step"] == 6


@pytest.mark.parametrize(
    "setting",
    ["data.train=[{0}/missing]", "data.val=[{0}/missing]", "optim.start_from={0}/missing"],
)
def test_a_run_that_cannot_start_leaves_no_folder(setting: str, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(JahpError):
        train(tiny_config(tmp_path / "runs", shards, setting.format(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_continue_keeps_its_folder(shards: Path, tmp_path: Path) -> None:
    result = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=1"))
    files = {path: path.stat().st_mtime_ns for path in result.run_dir.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="missing"):
        train(tiny_config(tmp_path, shards, *NOTHING_CODED, "allow_changes=true", "data.train=[missing]"))
    assert {path: path.stat().st_mtime_ns for path in result.run_dir.rglob("*") if path.is_file()} == files


# Reproducibility and progress -----------------------------------------------------------------------------------------


def test_two_runs_with_one_seed_give_identical_losses(finished: TrainResult, shards: Path, tmp_path: Path) -> None:
    again = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "optim.ema_decay=0.9"))
    other = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "optim.ema_decay=0.9", "seed=1", "name=other"))
    assert training_losses(again) == training_losses(finished)
    assert again.metrics == finished.metrics
    assert training_losses(other) != training_losses(finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    "entropy_model", ["factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint"]
)
def test_three_hundred_steps_lower_the_validation_loss_by_more_than_half(
    entropy_model: str, shards: Path, tmp_path: Path
) -> None:
    settings = [
        f"model.entropy_model={entropy_model}",
        "trainer.max_steps=300",
        "trainer.val_every_steps=300",
        "data.crop_size=32",
        "data.batch_size=2",
    ]
    config = tiny_config(tmp_path, shards, *NOTHING_CODED, *settings, "trainer.log_every_steps=50")
    seed_everything(config.seed, verbose=False)
    before = validate(CompressionModule(config).evaluated_model, config)
    result = train(config)
    assert result.steps == 300
    assert before.loss is not None
    assert result.metrics["val/loss"] < 0.5 * float(before.loss)


def test_a_run_of_limited_time_ends_in_time_and_anneals(shards: Path, tmp_path: Path) -> None:
    limits = ("trainer.max_time=00:00:00:03", "trainer.max_steps=1000000", "trainer.val_every_steps=100000")
    result = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "optim.schedule=cosine", *limits))
    assert 3 <= result.seconds < 15
    assert 0 < result.steps < 100_000
    last = [row for row in rows(result) if row["train/loss"]][-1]
    assert float(last["train/learning_rate"]) < 0.2e-3
    assert "val/loss" in result.metrics  # validated at the end although no interval was complete
    assert train(load_config(str(result.run_dir / "config.yaml"))).steps == result.steps


# Bad input ------------------------------------------------------------------------------------------------------------


def test_missing_shards_leave_no_checkpoint_behind(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        train(tiny_config(tmp_path, shards, f"data.train=[{tmp_path / 'nowhere'}]"))
    assert not (tmp_path / "joint" / "checkpoints").exists()


def test_a_full_disk_that_a_logger_meets_is_named(shards: Path, tmp_path: Path) -> None:
    class Full(Callback):
        def on_train_start(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")  # as TensorBoard does

    config = tiny_config(tmp_path, shards, *NOTHING_CODED)
    with pytest.raises(OSError, match="No space left") as caught:
        train(config, callbacks=[Full()])
    assert caught.value.filename == str(config.run_dir)


def test_many_non_finite_steps_stop_the_run_and_keep_the_last_good_checkpoint(shards: Path, tmp_path: Path) -> None:
    good = train(tiny_config(tmp_path, shards, *NOTHING_CODED))
    before = load_checkpoint_model(good.last)
    settings = ("optim.learning_rate=1e30", "optim.clip_norm=0", "trainer.max_steps=500", "trainer.max_skipped_steps=3")
    settings = (*settings, "allow_changes=true")
    with pytest.raises(TrainingError, match="3 optimizer steps in a row"):
        train(tiny_config(tmp_path, shards, *NOTHING_CODED, *settings, "trainer.val_every_steps=1000"))
    assert read_checkpoint(good.last)["global_step"] == 8
    assert all_equal(list(before.parameters()), list(load_checkpoint_model(good.last).parameters()))


def test_validation_images_too_small_for_ms_ssim_are_named_when_it_is_the_loss(shards: Path, tmp_path: Path) -> None:
    write_shards([PHOTOS / "train"], tmp_path / "large", ShardOptions(min_side=176, max_side=300))
    settings = ("loss.distortion=ms_ssim", "data.crop_size=176", "data.batch_size=1", "trainer.max_steps=1")
    write_shards([PHOTOS / "val"], tmp_path / "small", ShardOptions(min_side=64, max_side=128))
    settings = (*settings, f"data.train=[{tmp_path / 'large'}]", f"data.val=[{tmp_path / 'small'}]")
    with pytest.warns(UserWarning, match="at least 176 pixels, so MS-SSIM and val/loss are undefined"):
        result = train(tiny_config(tmp_path, shards, *NOTHING_CODED, *settings))
    assert result.best is None
    assert math.isnan(result.metrics["val/ms_ssim_db"])
    assert result.metrics["val/ms_ssim_images"] == 0


# Small things ---------------------------------------------------------------------------------------------------------


def test_auto_precision_is_what_this_processor_prefers_and_an_explicit_one_stays() -> None:
    chosen = choose_precision(load_config("trainer.accelerator=cpu").trainer)
    assert chosen == ("bf16-mixed" if prefers_bfloat16(torch.device("cpu")) else "32-true")
    if not torch.cpu.get_capabilities().get("avx512_bf16", False):
        assert chosen == "32-true"
    for precision in ("32-true", "bf16-mixed"):
        assert choose_precision(load_config(f"trainer.precision={precision}").trainer) == precision


def test_a_run_in_bfloat16_trains_and_validates_in_float32(shards: Path, tmp_path: Path) -> None:
    settings = ("trainer.precision=bf16-mixed", "trainer.max_steps=2", "trainer.val_every_steps=2")
    config = tiny_config(tmp_path, shards, *settings)
    result = train(config)
    assert result.skipped_steps == 0
    assert result.metrics["val/mismatched_symbols"] == 0
    assert result.metrics["val/bpp"] == pytest.approx(
        float(validate(load_checkpoint_model(result.last), config).bpp), rel=1e-5
    )


def test_the_progress_line_says_where_training_is(finished: TrainResult) -> None:
    config = load_config(str(finished.run_dir / "config.yaml"))
    module = CompressionModule(config)
    metrics = {"val/bpp": torch.tensor(0.4), "val/psnr": torch.tensor(29.0)}
    metrics |= {"val/file_bpp": torch.tensor(0.5), "val/file_psnr": torch.tensor(30.0)}  # of the images that were coded
    trainer = SimpleNamespace(
        global_step=0, max_steps=8, callback_metrics=metrics, world_size=1, optimizers=[], precision="32-true"
    )
    module._trainer = trainer  # type: ignore[assignment]
    closed, gone = os.pipe()
    os.close(closed)
    with os.fdopen(gone, "w") as pipe:  # nobody reads it any longer, but training must go on
        ProgressLine("night", batch_size=4, stream=pipe).on_train_start(trainer, module)  # type: ignore[arg-type]
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone)  # for what is still buffered
    stream = io.StringIO()
    line = ProgressLine("night", batch_size=4, stream=stream)
    line.on_train_start(trainer, module)  # type: ignore[arg-type]
    trainer.global_step = 2
    time.sleep(0.01)
    line.on_validation_start(trainer, module)  # type: ignore[arg-type]
    line.on_validation_end(trainer, module)  # type: ignore[arg-type]
    introduction, text = stream.getvalue().split("\n", 1)
    assert introduction.startswith("night: joint model, N=8 M=12, gaussian K=1, ")
    assert text.startswith("night █████···············  25 % | step 2/8 | ")
    assert "images/s" in text
    assert "left" in text
    assert "validation 0.500 bpp 30.00 dB" in text
    assert text.count("\n") == 1
    module.latest = TrainingRow(*[math.nan] * len(TrainingRow._fields))
    assert "the latest steps were skipped | " in line.format_line(trainer, module)  # type: ignore[arg-type]
