"""Runs continue from the last complete checkpoint, and take the same steps as an uninterrupted run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from torch import Tensor

from jahp_pl.config import ConfigError, to_dict
from jahp_pl.config.changes import find_changes
from jahp_pl.model_io.checkpoint import CheckpointError, read_checkpoint
from jahp_pl.settings import load_config
from jahp_pl.training.checkpoints import FORMER_BEST
from jahp_pl.training.lightning_warnings import only_useful_messages
from jahp_pl.training.loggers import CsvLogger
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import TrainResult, build_trainer, train
from tests.support.tiny_runs import NOTHING_CODED, all_equal, loader, moments, rows, tiny_config, training_losses

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("optim.ema_decay=0.9", "trainer.channels_last=true"),
        ("optim.optimizer=soap", "optim.schedule=constant", "trainer.channels_last=true", "trainer.max_steps=24"),
    ],
    ids=["plain", "ema", "soap"],
)
def test_a_resumed_run_takes_the_steps_of_an_uninterrupted_one(
    settings: tuple[str, ...], shards: Path, photos: Tensor, tmp_path: Path
) -> None:
    """On the same batches, weights, moments, average and learning rate agree to the last bit."""
    schedule = ("optim.schedule=cosine", "optim.warmup_steps=3", "data.batch_size=3", "trainer.max_steps=8")
    config = tiny_config(tmp_path, shards, "data.val=[]", *schedule, *settings)
    whole = CompressionModule(config)
    first, second = CompressionModule(config), CompressionModule(config)
    first.load_state_dict(whole.state_dict())
    last = config.trainer.max_steps
    with only_useful_messages():
        build_trainer(config, [], []).fit(whole, loader(photos))
        half = build_trainer(config, [], [])
        half.fit_loop.epoch_loop.max_steps = last // 2
        half.fit(first, loader(photos))
        half.save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
        build_trainer(config, [], []).fit(second, loader(photos, start=last // 2), ckpt_path=tmp_path / "half.ckpt")
    assert first.global_step == last // 2
    assert second.global_step == whole.global_step == last
    assert all_equal(list(whole.parameters()), list(second.parameters()))
    assert all_equal(moments(whole), moments(second))
    rates = [m.trainer.optimizers[0].param_groups[0]["lr"] for m in (whole, second)]
    assert rates[0] == rates[1]
    assert second.clock.seconds > first.clock.seconds


def test_train_continues_from_the_last_checkpoint(shards: Path, tmp_path: Path) -> None:
    short = train(tiny_config(tmp_path, shards, *NOTHING_CODED))
    longer = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=12"))
    assert longer.steps == 12
    assert longer.seconds > short.seconds
    assert [step for step, _ in training_losses(longer)] == ["2", "4", "6", "8", "10", "12"]
    assert [row["step"] for row in rows(longer) if row["val/loss"]] == ["4", "8", "12"]
    steps = {float(state["step"]) for state in read_checkpoint(longer.last)["optimizer_states"][0]["state"].values()}
    assert steps == {12.0}


def test_a_finished_run_is_not_trained_again(finished: TrainResult) -> None:
    written = finished.last.stat().st_mtime_ns
    modified = (finished.run_dir / "config.yaml").stat().st_mtime_ns
    again = train(load_config(str(finished.run_dir / "config.yaml")))
    assert again == finished._replace(was_finished=True)
    assert (finished.run_dir / "config.yaml").stat().st_mtime_ns == modified
    assert finished.last.stat().st_mtime_ns == written


def test_rows_after_the_step_that_is_resumed_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    before = CsvLogger(path)
    for step in (1, 2, 3):
        before.log_metrics({"a": step}, step)
    with path.open("a") as file:
        file.write("4")  # cut short by a kill
    after = CsvLogger(path)
    after.resume(2)
    after.log_metrics({"b": 7.0}, 3)
    after.log_metrics({"a": 8.0}, 4)
    assert path.read_text().splitlines() == ["step,a,b", "1,1,", "2,2,", "3,,7", "4,8,"]
    CsvLogger(path).log_metrics({"c": 1.0}, 1)
    assert path.read_text().splitlines() == ["step,c", "1,1"]


def test_resume_false_refuses_a_folder_with_a_checkpoint(finished: TrainResult, shards: Path) -> None:
    config = tiny_config(finished.run_dir.parent, shards, "resume=false")
    with pytest.raises(ConfigError, match=r"resume=False: .*last\.ckpt exists; choose another name") as refusal:
        train(config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.num_latents=16", r"model\.num_latents=16: .*was trained with 12"),
        ("model.entropy_model=context", r"model\.entropy_model=context: .*was trained with joint"),
        ("optim.optimizer=soap", r"optim\.optimizer=soap: .*was trained with adam"),
        ("optim.ema_decay=0", r"optim\.ema_decay=0\.0: .*was trained with 0\.9"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_naming_the_first_difference(
    setting: str, words: str, finished: TrainResult, shards: Path
) -> None:
    config = tiny_config(finished.run_dir.parent, shards, "optim.ema_decay=0.9", setting)
    with pytest.raises(ConfigError, match=words):
        train(config)


@pytest.mark.parametrize(
    "setting",
    [
        "loss.lmbda=0.5", "seed=7", "data.batch_size=2", "data.max_val_images=1", "optim.learning_rate=1e-4",
        "optim.schedule=cosine", "optim.start_from=joint-psnr", "model.quantization=mixed",
    ],
)  # fmt: skip
@pytest.mark.parametrize("steps", [8, 12], ids=["finished", "unfinished"])
def test_a_run_does_not_continue_with_settings_that_change_its_result(
    setting: str, steps: int, finished: TrainResult, shards: Path
) -> None:
    saved = finished.last.stat().st_mtime_ns
    written = (finished.run_dir / "config.yaml").read_bytes()
    length = f"trainer.max_steps={steps}"
    config = tiny_config(finished.run_dir.parent, shards, *NOTHING_CODED, "optim.ema_decay=0.9", length, setting)
    with pytest.raises(ConfigError, match=rf"was trained with {setting.split('=')[0]}=.* instead of .*; set them back, "
                       r"choose another name=.*optim\.start_from=.*allow_changes=true"):  # fmt: skip
        train(config)
    assert finished.last.stat().st_mtime_ns == saved
    assert (finished.run_dir / "config.yaml").read_bytes() == written


def test_all_changes_are_named_and_a_missing_setting_counts_as_its_default() -> None:
    then = to_dict(
        load_config("loss.lmbda=1", "seed=3", "data.num_workers=7", "trainer.devices=2", "data.batch_size=16")
    )
    del then["optim"]["clip_norm"]
    found = find_changes(then, load_config("data.batch_size=16", "trainer.max_steps=9"))
    assert [str(change) for change in found] == ["seed=3 instead of 0", "loss.lmbda=1.0 instead of 0.013"]
    found = find_changes(then, load_config("loss.lmbda=1", "seed=3", "data.batch_size=16", "optim.clip_norm=2"))
    assert [str(change) for change in found] == ["optim.clip_norm=1.0 instead of 2.0"]


def test_allowed_changes_forget_the_best_loss_and_take_effect(shards: Path, tmp_path: Path) -> None:
    """At lambda 1, every loss is higher than the best loss at lambda 0.001, but best.ckpt must still be replaced."""
    first = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "loss.lmbda=0.001"))
    assert first.best is not None
    settings = (*NOTHING_CODED, "loss.lmbda=1", "optim.transform_factor=0.5", "allow_changes=true")
    with pytest.raises(ConfigError, match=r"trainer\.max_steps=8: .*has 8 steps and is complete"):
        train(tiny_config(tmp_path, shards, *settings))
    second = train(tiny_config(tmp_path, shards, *settings, "trainer.max_steps=12"))
    assert second.best is not None
    best = read_checkpoint(second.best)
    assert (best["global_step"], best["hyper_parameters"]["loss"]["lmbda"]) == (12, 1.0)
    assert best["optimizer_states"][0]["param_groups"][1]["factor"] == 0.5
    assert read_checkpoint(first.best.with_name(FORMER_BEST))["hyper_parameters"]["loss"]["lmbda"] == 0.001
    assert load_config(str(second.run_dir / "config.yaml")).allow_changes is False
    assert train(load_config(str(second.run_dir / "config.yaml"))).was_finished


def test_lengths_devices_and_logging_may_change(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=2"))
    others = ("trainer.log_every_steps=1", "trainer.channels_last=true", "data.cache_dir=cache", "data.timeout=5")
    longer = train(tiny_config(tmp_path, shards, "trainer.max_steps=4", "coding.max_images=1", *others))
    assert (longer.steps, longer.was_finished) == (4, False)


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage: str, shards: Path, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=6", "trainer.val_every_steps=2",
        "trainer.keep_checkpoints=3",
    )  # fmt: skip
    last = train(config).last
    whole = last.read_bytes()
    steps = [read_checkpoint(last.with_name(name))["global_step"] for name in ("last-2.ckpt", "last-1.ckpt")]
    assert steps == [2, 4]
    assert not last.with_name("last-3.ckpt").exists()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    spoiled = {"a flipped bit": flipped, "cut short": whole[:middle], "empty": b""}[damage]
    last.unlink()  # others may be links to it
    last.write_bytes(spoiled)

    config.trainer.max_steps = 8
    with pytest.warns(UserWarning, match=r"last\.ckpt: .*; continuing from last-1\.ckpt, step 4; the damaged file"):
        result = train(config)
    assert result.steps == 8
    assert last.with_name("last.ckpt.damaged").read_bytes() == spoiled
    with (config.run_dir / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/loss"]] == ["2", "4", "6", "8"]


def test_if_all_checkpoints_are_damaged_the_last_is_named(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=4", "trainer.val_every_steps=2")
    last = train(config).last
    for path in (last, last.with_name("last-1.ckpt")):
        path.unlink()
        path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: is not a checkpoint, or is cut short"):
        train(config)
    assert last.read_bytes() == b"PK"
