"""CompressionModule works in the user's own Trainer, with any loader, logger and callback."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jahp_pl.config import OptimConfig
from jahp_pl.data.pipeline import ValImage
from jahp_pl.model_io.checkpoint import CheckpointError, load_checkpoint_model, read_checkpoint
from jahp_pl.training import TrainingError
from jahp_pl.training.batches import images_of
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import TrainResult, train
from tests.support.tiny_runs import NOTHING_CODED, all_equal, experiment, loader, seeded, tiny_config, weights

pytestmark = pytest.mark.usefixtures("one_thread")
BYTES = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
FLOATS = BYTES.float() / 255


class Items(Dataset[Any]):
    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: int) -> Any:
        return self.item(place)


def own_trainer(**options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **{**quiet, **options})


def trained(item: Callable[[int], Any], **options: Any) -> tuple[CompressionModule, Trainer]:
    module, trainer = seeded(experiment()), own_trainer(**{"max_steps": 2, "max_epochs": 1, **options})
    trainer.fit(module, DataLoader(Items(item), batch_size=2), DataLoader(Items(item), batch_size=1))
    return module, trainer


KINDS: dict[str, Callable[[int], Any]] = {
    "bytes": lambda place: BYTES[place],
    "doubles": lambda place: BYTES[place].double() / 255,
    "beside a label": lambda place: (BYTES[place], 3),
    "floats beside a label": lambda place: [FLOATS[place], torch.zeros(5)],
    "by name": lambda place: {"label": 1, "image": BYTES[place]},
}


@pytest.fixture(scope="module")
def plain(one_thread: None) -> CompressionModule:
    return trained(lambda place: FLOATS[place])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_batches_train_and_validate_equally(kind: str, plain: CompressionModule) -> None:
    module, trainer = trained(KINDS[kind])
    assert all_equal(weights(module), weights(plain))
    assert trainer.callback_metrics["val/images"] == 4
    assert math.isfinite(trainer.callback_metrics["val/psnr"])


def test_a_batch_of_several_validation_images_is_measured_image_by_image() -> None:
    module = seeded(experiment())
    one, four = (
        own_trainer().validate(module, DataLoader(Items(KINDS["bytes"]), batch_size=size), verbose=False)[0]
        for size in (1, 4)
    )
    assert one["val/images"] == four["val/images"] == 4
    assert one["val/psnr"] == pytest.approx(four["val/psnr"], rel=1e-6)
    assert one["val/loss"] == pytest.approx(four["val/loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (lambda place: BYTES[place].float(), r"images must be RGB in \[0, 1\]; these range from 0 to 255"),
        (lambda place: (FLOATS[place] - 0.45) / 0.22, "Remove Normalize"),
        (lambda place: BYTES[place, :1], r"this one is torch.uint8 of shape \(2, 1, 64, 64\)"),
        (lambda place: "photo.png", "this one is str"),
    ],
    ids=["not divided", "normalized", "gray", "a name"],
)
def test_other_batches_are_refused_in_one_line_that_says_what_to_do(item: Callable[[int], Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words) as refused:
        trained(item, num_sanity_val_steps=0)
    assert "\n" not in str(refused.value)


def test_batches_are_converted_as_in_the_table() -> None:
    assert torch.equal(images_of(BYTES), FLOATS)
    assert images_of(FLOATS) is FLOATS
    assert torch.equal(images_of(FLOATS.double()), FLOATS)
    assert torch.equal(images_of({"pixel_values": BYTES}), FLOATS)


def test_metrics_reach_the_users_callbacks_and_logger_at_the_trainers_steps(tmp_path: Path) -> None:
    _, trainer = trained(
        KINDS["bytes"], max_steps=4, max_epochs=2, log_every_n_steps=1, logger=CSVLogger(tmp_path, "", "")
    )
    assert {"train/loss", "train/bpp", "val/loss", "val/psnr"} <= set(trainer.callback_metrics)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/loss"]] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows if row["val/loss"]] == ["2", "4"], "nothing of the sanity check at step 0"


def test_a_checkpoint_of_the_users_trainer_has_the_average_of_its_step_and_loads(
    photos: Tensor, tmp_path: Path
) -> None:
    module = seeded(experiment(OptimConfig(learning_rate=1e-3, ema_decay=0.9)))
    saves = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    trainer = own_trainer(max_steps=3, max_epochs=-1, enable_checkpointing=True, callbacks=[saves])
    trainer.fit(module, loader(photos))
    path = next(tmp_path.glob("*.ckpt"))
    again = CompressionModule.load_from_checkpoint(path)
    assert again.config == module.config
    assert all_equal(weights(again), weights(module))
    assert module.average is not None
    assert again.average is not None
    assert all_equal(list(again.average.parameters()), list(module.average.parameters()))
    assert all_equal(list(load_checkpoint_model(path).parameters()), list(module.average.parameters()))
    images = DataLoader(Items(KINDS["bytes"]), batch_size=1)
    first, second = (own_trainer().validate(one, images, verbose=False) for one in (module, again))
    assert str(first) == str(second)  # NaN where images are too small for MS-SSIM


def test_the_checkpoint_of_a_run_loads(finished: TrainResult, tmp_path: Path) -> None:
    module = CompressionModule.load_from_checkpoint(finished.last)
    assert read_checkpoint(finished.last)["hyper_parameters"]["name"] == module.config.name
    (tmp_path / "cut.ckpt").write_bytes(finished.last.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cut short"):
        CompressionModule.load_from_checkpoint(tmp_path / "cut.ckpt")


def test_gradients_of_several_batches_make_one_step(photos: Tensor) -> None:
    module = seeded(experiment(OptimConfig(learning_rate=1e-3, ema_decay=0.9)))
    trainer = own_trainer(max_steps=3, max_epochs=-1, accumulate_grad_batches=2, log_every_n_steps=1)
    trainer.fit(module, loader(photos))
    assert trainer.global_step == 3
    assert all(float(state["step"]) == 3 for state in trainer.optimizers[0].state.values())
    assert module.latest is not None
    assert math.isfinite(module.latest.loss)


def test_the_learning_rate_anneals_until_the_trainer_ends() -> None:
    module = seeded(experiment(OptimConfig(learning_rate=1e-3, schedule="cosine", final_factor=0.1)))
    module.config.trainer.max_steps = 1_000_000
    trainer = own_trainer(max_epochs=5, num_sanity_val_steps=0)
    trainer.fit(module, DataLoader(Items(KINDS["bytes"]), batch_size=2))
    assert trainer.global_step == 10
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1.3e-4


def test_the_limits_of_the_configuration_end_training_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("jahp_pl.training.stopping.rank_zero_info", said.append)
    for limit, reasons in ((1, 1), (2, 0)):
        module = seeded(experiment())
        module.config.trainer.max_steps = limit
        trainer = own_trainer(max_steps=2, max_epochs=-1, num_sanity_val_steps=0)
        trainer.fit(module, DataLoader(Items(KINDS["bytes"]), batch_size=2))
        assert (trainer.global_step, len(said)) == (limit, reasons)
        said.clear()


def test_tensorboard_gets_the_metrics_and_the_pictures(shards: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = ("tensorboard=true", "trainer.max_steps=4", "coding.max_images=1")
    result = train(tiny_config(tmp_path, shards, *settings))
    events = accumulator.EventAccumulator(str(result.run_dir / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val/loss")] == [4]
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4]
    assert any(tag.startswith("pictures/") for tag in events.Tags()["images"])


def test_quiet_runs_print_no_line(shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tiny_config(tmp_path, shards, *NOTHING_CODED, "trainer.max_steps=2"), show_progress=False)
    assert capfd.readouterr() == ("", "")


def test_the_name_of_a_validation_image_may_be_in_any_encoding() -> None:
    image = ValImage("caf\udce9", FLOATS[:1])  # as tarfile reads names that are not UTF-8
    (values,) = own_trainer().validate(seeded(experiment()), DataLoader([image], batch_size=None), verbose=False)
    assert values["val/images"] == 1
