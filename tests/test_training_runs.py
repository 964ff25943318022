"""Whole runs of `train` on shards of real photographs: what they leave on the disk, and how they go on."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from torch import Tensor

from jahp_pl.checkpoint import CheckpointError, find_checkpoint, load_model, read_checkpoint
from jahp_pl.config import Config, ConfigError, to_dict
from jahp_pl.data.index import DataError
from jahp_pl.data.module import ShardDataModule
from jahp_pl.files import WriteError
from jahp_pl.settings import load
from jahp_pl.training import TrainingError
from jahp_pl.training.checkpoints import AtomicCheckpointIO
from jahp_pl.training.loggers import CsvLogger
from jahp_pl.training.messages import only_useful_messages
from jahp_pl.training.metrics import RowMeans, ValidationRow, measure
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.progress import ProgressLine
from jahp_pl.training.run import TrainResult, build_trainer, choose_precision, train
from jahp_pl.training.wandb_run import finish_wandb, wandb_logger
from tests.tiny_runs import all_equal, loader, moments, tiny_config, write_tiny_shards

NOTHING_CODED = ("coding.max_images=0",)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Eight steps with an average of the weights, validated after four and eight, nothing coded."""
    return train(tiny_config(tmp_path_factory.mktemp("runs"), shards, *NOTHING_CODED, "optim.ema_decay=0.9"))


def rows(result: TrainResult) -> list[dict[str, str]]:
    with (result.run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def training_losses(result: TrainResult) -> list[tuple[str, str]]:
    return [(row["step"], row["train/loss"]) for row in rows(result) if row["train/loss"]]


# What a run leaves ----------------------------------------------------------------------------------------------------


def test_the_run_folder_holds_the_configuration_of_the_run(finished: TrainResult, shards: Path) -> None:
    config = load([str(finished.run_dir / "config.yaml")])
    assert config == tiny_config(finished.run_dir.parent, shards, *NOTHING_CODED, "optim.ema_decay=0.9")
    assert yaml.safe_load((finished.run_dir / "config.yaml").read_text()) == to_dict(config)


def test_metrics_are_written_by_optimizer_steps(finished: TrainResult) -> None:
    assert [step for step, _ in training_losses(finished)] == ["2", "4", "6", "8"]
    validated = [row for row in rows(finished) if row["val/loss"]]
    assert [row["step"] for row in validated] == ["4", "8"]
    assert [row["val/images"] for row in validated] == ["3", "3"]
    for name in ("bpp", "bpp_y", "bpp_z", "mse", "psnr", "learning_rate", "grad_norm", "seconds_per_step"):
        assert all(float(row[f"train/{name}"]) > 0 for row in rows(finished) if row["train/loss"])


def test_the_result_tells_what_the_last_validation_found(finished: TrainResult) -> None:
    last = [row for row in rows(finished) if row["val/loss"]][-1]
    for name in ("val/loss", "val/bpp", "val/psnr"):
        assert finished.metrics[name] == pytest.approx(float(last[name]), rel=1e-5)
    assert finished.steps == 8
    assert finished.skipped_steps == 0
    assert finished.seconds > 0


def test_checkpoints_hold_plain_values_only(finished: TrainResult) -> None:
    assert finished.best is not None
    for path in (finished.last, finished.best):
        content = torch.load(path, weights_only=True)
        assert content["hyper_parameters"] == to_dict(load([str(finished.run_dir / "config.yaml")]))
        assert {key.split(".")[0] for key in content["state_dict"]} == {"model", "average"}


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(finished: TrainResult) -> None:
    losses = {int(row["step"]): float(row["val/loss"]) for row in rows(finished) if row["val/loss"]}
    assert finished.best is not None
    assert read_checkpoint(finished.best)["global_step"] == min(losses, key=lambda step: losses[step])


def test_the_loaded_model_is_the_one_that_was_validated(finished: TrainResult, shards: Path) -> None:
    model = load_model(finished.last)
    expected = finished.metrics["val/bpp"]
    assert validate(model, load([str(finished.run_dir / "config.yaml")])).bpp == pytest.approx(expected, rel=1e-5)
    trained = load_model(finished.last, average=False)
    assert not all_equal(list(model.parameters()), list(trained.parameters()))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def validate(model: torch.nn.Module, config: Config) -> ValidationRow:
    means = RowMeans(ValidationRow)
    for image in ShardDataModule(config.data, config.seed).val_dataloader():
        means.update(measure(model, config.loss, image.image))  # type: ignore[arg-type]
    return means.compute()[0]


def test_a_run_without_validation_saves_by_steps(shards: Path, tmp_path: Path) -> None:
    result = train(tiny_config(tmp_path, shards, "data.val=[]", "trainer.max_steps=6"))
    assert (result.best, result.metrics, result.steps) == (None, {}, 6)
    assert read_checkpoint(result.last)["global_step"] == 6


# Reproducibility and progress -----------------------------------------------------------------------------------------


def test_two_runs_with_one_seed_give_identical_losses(finished: TrainResult, shards: Path, tmp_path: Path) -> None:
    again = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "optim.ema_decay=0.9"))
    other = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "optim.ema_decay=0.9", "seed=1", "name=other"))
    assert training_losses(again) == training_losses(finished)
    assert again.metrics == finished.metrics
    assert training_losses(other) != training_losses(finished)


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint"])
def test_three_hundred_steps_lower_the_validation_loss_by_more_than_half(
    rung: str, shards: Path, tmp_path: Path
) -> None:
    settings = [
        f"model.rung={rung}",
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


# Resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [(), ("optim.ema_decay=0.9", "trainer.channels_last=true")], ids=["plain", "ema"])
def test_a_resumed_run_takes_the_steps_of_an_uninterrupted_one(
    settings: tuple[str, ...], shards: Path, photos: Tensor, tmp_path: Path
) -> None:
    """On the same batches: weights, moments, average and learning rate, to the last bit."""
    schedule = ("optim.schedule=cosine", "optim.warmup_steps=3", "data.batch_size=3", "trainer.max_steps=8")
    config = tiny_config(tmp_path, shards, "data.val=[]", *schedule, *settings)
    whole = CompressionModule(config)
    first, second = CompressionModule(config), CompressionModule(config)
    first.load_state_dict(whole.state_dict())
    with only_useful_messages():
        build_trainer(config, [], []).fit(whole, loader(photos))
        half = build_trainer(config, [], [])
        half.fit_loop.epoch_loop.max_steps = 4
        half.fit(first, loader(photos))
        half.save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
        build_trainer(config, [], []).fit(second, loader(photos, start=4), ckpt_path=tmp_path / "half.ckpt")
    assert first.global_step == 4
    assert second.global_step == whole.global_step == 8
    assert all_equal(list(whole.parameters()), list(second.parameters()))
    assert all_equal(moments(whole), moments(second))
    rates = [m.trainer.optimizers[0].param_groups[0]["lr"] for m in (whole, second)]
    assert rates[0] == rates[1]
    assert second.clock.seconds > first.clock.seconds


def test_train_goes_on_from_the_last_checkpoint(shards: Path, tmp_path: Path) -> None:
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
    again = train(load([str(finished.run_dir / "config.yaml")]))
    assert again == finished
    assert finished.last.stat().st_mtime_ns == written


def test_a_run_of_limited_time_ends_in_time_and_anneals(shards: Path, tmp_path: Path) -> None:
    limits = ("trainer.max_time=00:00:00:03", "trainer.max_steps=1000000", "trainer.val_every_steps=100000")
    result = train(tiny_config(tmp_path, shards, *NOTHING_CODED, "optim.schedule=cosine", *limits))
    assert 3 <= result.seconds < 15
    assert 0 < result.steps < 100_000
    last = [row for row in rows(result) if row["train/loss"]][-1]
    assert float(last["train/learning_rate"]) < 0.2e-3
    assert "val/loss" in result.metrics  # validated at the end, though no interval was full
    assert train(load([str(result.run_dir / "config.yaml")])).steps == result.steps


def test_rows_after_the_step_that_is_resumed_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    before = CsvLogger(path)
    for step in (1, 2, 3):
        before.log_metrics({"a": step}, step)
    with path.open("a") as file:
        file.write("4")  # cut short by a kill
    after = CsvLogger(path, start_step=2)
    after.log_metrics({"b": 7.0}, 3)
    after.log_metrics({"a": 8.0}, 4)
    assert path.read_text().splitlines() == ["step,a,b", "1,1,", "2,2,", "3,,7", "4,8,"]
    CsvLogger(path).log_metrics({"c": 1.0}, 1)
    assert path.read_text().splitlines() == ["step,c", "1,1"]


def test_sigterm_saves_and_the_run_goes_on_from_there(shards: Path, tmp_path: Path) -> None:
    settings = tiny_config(tmp_path, shards, "trainer.max_steps=100000", "trainer.val_every_steps=100000")
    process = in_a_process(settings, "train(config)")
    log = tmp_path / "joint" / "metrics.csv"
    wait_until(lambda: log.exists() and "\n4," in log.read_text(), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    steps = read_checkpoint(tmp_path / "joint" / "checkpoints" / "last.ckpt")["global_step"]
    assert steps >= 4
    more = tiny_config(tmp_path, shards, f"trainer.max_steps={steps + 2}", *NOTHING_CODED)
    assert train(more).steps == steps + 2


def in_a_process(config: Config, body: str, **environment: str) -> subprocess.Popen[str]:
    """Run Python statements that know `config` and `train`."""
    config.run_dir.parent.mkdir(parents=True, exist_ok=True)
    file = config.run_dir.parent / "settings.yaml"
    file.write_text(yaml.safe_dump(to_dict(config)))
    script = config.run_dir.parent / "script.py"
    script.write_text(
        "from jahp_pl.settings import load\n"
        "from jahp_pl.training.run import train\n"
        f"config = load([{str(file)!r}])\n"
        "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in body.splitlines())
    )
    return subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_until(condition, process: subprocess.Popen[str], seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


# Bad input ------------------------------------------------------------------------------------------------------------


def test_resume_false_refuses_a_folder_with_a_checkpoint(finished: TrainResult, shards: Path) -> None:
    config = tiny_config(finished.run_dir.parent, shards, "resume=false")
    with pytest.raises(ConfigError, match=r"resume=False: .*last\.ckpt exists; choose another name") as refusal:
        train(config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.num_latents=16", r"model\.num_latents=16: .*was trained with 12"),
        ("model.rung=context", r"model\.rung=context: .*was trained with joint"),
        ("optim.ema_decay=0", r"optim\.ema_decay=0\.0: .*was trained with 0\.9"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_naming_the_first_difference(
    setting: str, words: str, finished: TrainResult, shards: Path
) -> None:
    config = tiny_config(finished.run_dir.parent, shards, "optim.ema_decay=0.9", setting)
    with pytest.raises(ConfigError, match=words):
        train(config)


def test_missing_shards_leave_no_checkpoint_behind(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        train(tiny_config(tmp_path, shards, f"data.train=[{tmp_path / 'nowhere'}]"))
    assert not (tmp_path / "joint" / "checkpoints").exists()


def test_many_non_finite_steps_stop_the_run_and_keep_the_last_good_checkpoint(shards: Path, tmp_path: Path) -> None:
    good = train(tiny_config(tmp_path, shards, *NOTHING_CODED))
    before = load_model(good.last)
    settings = ("optim.learning_rate=1e30", "optim.clip_norm=0", "trainer.max_steps=500", "trainer.max_skipped_steps=3")
    with pytest.raises(TrainingError, match="3 optimizer steps in a row"):
        train(tiny_config(tmp_path, shards, *NOTHING_CODED, *settings, "trainer.val_every_steps=1000"))
    assert read_checkpoint(good.last)["global_step"] == 8
    assert all_equal(list(before.parameters()), list(load_model(good.last).parameters()))


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(shards: Path, tmp_path: Path) -> None:
    """A limit on the size of files makes the same error as a full disk, at the same place."""
    config = tiny_config(tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=4")
    good = train(config)
    content = good.last.read_bytes()
    config.trainer.max_steps = 8
    body = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(content) // 2}, {len(content) // 2}))\n"
        "try:\n"
        "    train(config)\n"
        "except OSError as error:\n"
        "    print('ERROR', type(error).__name__, error)\n"
    )
    output, _ = in_a_process(config, body).communicate(timeout=120)
    (line,) = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert re.search(r"WriteError .*last\.ckpt: cannot be written \(File too large\).*is kept\. Free some space", line)
    assert good.last.read_bytes() == content
    assert sorted(path.name for path in good.last.parent.iterdir()) == ["best.ckpt", "last-1.ckpt", "last.ckpt"]


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
    last.unlink()  # others may be the same file
    last.write_bytes(spoiled)

    config.trainer.max_steps = 8
    with pytest.warns(UserWarning, match=r"last\.ckpt: .*; going on from last-1\.ckpt, step 4; what is damaged"):
        result = train(config)
    assert result.steps == 8
    assert last.with_name("last.ckpt.damaged").read_bytes() == spoiled
    with (config.run_dir / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/loss"]] == ["2", "4", "6", "8"]


def test_where_all_checkpoints_are_damaged_the_last_is_named(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=4", "trainer.val_every_steps=2")
    last = train(config).last
    for path in (last, last.with_name("last-1.ckpt")):
        path.unlink()
        path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: no checkpoint, or cut short"):
        train(config)
    assert last.read_bytes() == b"PK"


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(2), "b": lambda: None}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]
    (tmp_path / "folder").write_text("a file in the way")
    with pytest.raises(WriteError, match="cannot be written"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "folder" / "x.ckpt")


def test_what_is_no_checkpoint_of_ours_is_refused_in_one_line(finished: TrainResult, tmp_path: Path) -> None:
    content = finished.last.read_bytes()
    whole = read_checkpoint(finished.last)

    def saved(name: str, **changes: object) -> Path:
        torch.save({**whole, **changes}, tmp_path / name)
        return tmp_path / name

    def written(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    weights_of = whole["state_dict"]
    lacking = {key: value for key, value in weights_of.items() if key != "average.g_s.0.weight"}
    reshaped = {**weights_of, "average.g_a.0.bias": torch.zeros(3)}
    foreign = {**weights_of, "average.g_a.99.bias": torch.zeros(3)}
    model = {**whole["hyper_parameters"]["model"], "num_filters": 9}
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    torch.save({"code": SimpleNamespace()}, tmp_path / "code.ckpt")
    cases = [
        (tmp_path / "none.ckpt", "no such checkpoint"),
        (tmp_path, "holds no checkpoint"),
        (written("empty.ckpt", b""), "cut short"),
        (written("short.ckpt", content[: len(content) // 2]), "cut short"),
        (written("damaged.ckpt", content[:20000] + bytes(2000) + content[22000:]), "damaged"),
        (written("text.ckpt", b"hello " * 1000), "no checkpoint"),
        (tmp_path / "other.ckpt", "not a checkpoint of jahp_pl"),
        (tmp_path / "code.ckpt", "more than tensors"),
        (saved("newer.ckpt", jahp_pl_format=2), "newer than this jahp_pl reads; upgrade"),
        (saved("lacking.ckpt", state_dict=lacking), "g_s.0.weight is missing"),
        (saved("reshaped.ckpt", state_dict=reshaped), r"g_a.0.bias has shape \(3,\) instead of \(8,\)"),
        (saved("foreign.ckpt", state_dict=foreign), "g_a.99.bias is unknown"),
        (saved("wider.ckpt", hyper_parameters={"model": model}), "g_a.0.weight has shape"),
        (saved("bare.ckpt", hyper_parameters={}), "configuration cannot be read"),
    ]
    for path, words in cases:
        with pytest.raises(CheckpointError, match=words) as refusal:
            load_model(find_checkpoint(path))
        assert "\n" not in str(refusal.value)
        assert str(path) in str(refusal.value)


def test_a_run_folder_stands_for_its_best_checkpoint(finished: TrainResult, tmp_path: Path) -> None:
    assert find_checkpoint(finished.run_dir) == finished.best
    (tmp_path / "last.ckpt").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "last.ckpt"


# Weights & Biases -----------------------------------------------------------------------------------------------------


def test_an_unreachable_wandb_leaves_the_run_offline(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, shards, *NOTHING_CODED, "wandb.mode=online", "trainer.max_steps=2")
    server = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "2"}
    output, _ = in_a_process(config, "print('DONE', train(config).steps)", **server).communicate(timeout=120)
    assert "DONE 2" in output
    assert "W&B cannot be reached" in output
    assert "wandb sync" in output
    assert list((config.run_dir / "wandb").glob("offline-run-*/run-*.wandb"))


def test_without_an_account_the_run_is_kept_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    config = load([f"output_dir={tmp_path}", "name=run", "wandb.mode=online"])
    with pytest.warns(UserWarning, match="W&B cannot be reached .*; the run is kept offline, send it later"):
        logger = wandb_logger(config)
    assert logger is not None
    logger.log_metrics({"a": 1.0}, step=1)
    finish_wandb(logger)
    assert list((config.run_dir / "wandb").glob("offline-run-*/run-*.wandb"))


# Several processes ----------------------------------------------------------------------------------------------------


def test_two_ranks_skip_the_same_steps_and_end_with_the_same_weights(shards: Path, tmp_path: Path) -> None:
    """Only one of them meets the damaged batch; three validation images are unequal shares."""
    config = tiny_config(tmp_path, shards, "trainer.devices=2", "trainer.max_steps=4", "optim.ema_decay=0.9")
    body = (
        "import torch\n"
        "from jahp_pl.training import run\n"
        "class Damaged(run.CompressionModule):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        if self.global_rank == 1 and self.global_step == 1:\n"
        "            batch = batch + float('inf')\n"
        "        return super().training_step(batch, batch_idx)\n"
        "    def on_train_end(self):\n"
        "        state = [self.skipped_steps, [p.detach() for p in self.parameters()]]\n"
        f"        torch.save(state, {str(tmp_path)!r} + f'/rank{{self.global_rank}}.pt')\n"
        "run.CompressionModule = Damaged\n"
        "images = train(config).metrics['val/images']\n"
        "if run.is_first_rank(): print('DONE', images)\n"
    )
    process = in_a_process(config, body)
    output, _ = process.communicate(timeout=180)
    assert output.count("DONE 3.0") == 1, output
    (skipped, first), (also_skipped, second) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert skipped == also_skipped == 1
    assert all_equal(first, second)
    result = train(config)  # finished: only reads
    assert result.skipped_steps == 1
    assert result.metrics["val/coded_images"] == 2
    assert result.metrics["val/mismatched_symbols"] == 0


# Small things ---------------------------------------------------------------------------------------------------------


def test_auto_precision_is_bfloat16_only_where_the_hardware_computes_in_it() -> None:
    settings = load(["trainer.accelerator=cpu"]).trainer
    native = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    assert choose_precision(settings) == ("bf16-mixed" if native else "32-true")
    assert choose_precision(load(["trainer.precision=bf16-mixed"]).trainer) == "bf16-mixed"


def test_a_run_in_bfloat16_trains_and_validates_in_float32(shards: Path, tmp_path: Path) -> None:
    settings = ("trainer.precision=bf16-mixed", "trainer.max_steps=2", "trainer.val_every_steps=2")
    config = tiny_config(tmp_path, shards, *settings)
    result = train(config)
    assert result.skipped_steps == 0
    assert result.metrics["val/mismatched_symbols"] == 0
    assert result.metrics["val/bpp"] == pytest.approx(float(validate(load_model(result.last), config).bpp), rel=1e-5)


def test_the_progress_line_says_where_training_is(finished: TrainResult) -> None:
    config = load([str(finished.run_dir / "config.yaml")])
    module = CompressionModule(config)
    metrics = {"val/bpp": torch.tensor(0.5), "val/psnr": torch.tensor(30.0)}
    trainer = SimpleNamespace(
        global_step=0, max_steps=8, callback_metrics=metrics, world_size=1, optimizers=[], precision="32-true"
    )
    module._trainer = trainer  # type: ignore[assignment]
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
