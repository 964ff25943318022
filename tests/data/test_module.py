"""The data module gives the same batches for a seed, new ones after a resume, and exact counts and shares."""

from __future__ import annotations

import gc
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from torch import Tensor

from jahp_pl.config import ConfigError, DataConfig
from jahp_pl.data.index import DataError
from jahp_pl.data.module import ShardDataModule
from jahp_pl.data.pipeline import ValImage
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.data.tar import list_members
from jahp_pl.data.urls import Shards
from tests.support.shard_servers import serving

PHOTOS = Path(__file__).parents[2] / "data" / "photos"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the bundled photographs: `train` (four), `val` (one)."""
    out = tmp_path_factory.mktemp("data")
    write_shards([PHOTOS / "train"], out / "train", ShardOptions(shard_samples=10))
    write_shards([PHOTOS / "val"], out / "val", ShardOptions(shuffle=False))
    return out


def config(folder: Path, **changes: Any) -> DataConfig:
    settings = {
        "train": [str(folder / "train")],
        "val": [str(folder / "val")],
        "crop_size": 64,
        "crops_per_photo": 1,
        "batch_size": 4,
        "num_workers": 0,
        "shuffle_buffer": 30,
    }
    return DataConfig(**(settings | changes))


def batches(module: ShardDataModule, count: int) -> list[Tensor]:
    """Draw batches and clone them, because a worker may reuse their memory."""
    return [batch.clone() for batch in itertools.islice(module.train_dataloader(), count)]  # type: ignore[union-attr]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_two_runs_with_the_same_seed_see_the_same_batches(folder: Path, num_workers: int) -> None:
    first, second, other = (
        batches(ShardDataModule(config(folder, num_workers=num_workers), seed), 6) for seed in (3, 3, 4)
    )
    for a, b, c in zip(first, second, other, strict=True):
        assert (a.shape, a.dtype) == ((4, 3, 64, 64), torch.uint8)
        assert a.min() < 50 < 200 < a.max()
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_two_workers_never_draw_the_same_crops(folder: Path) -> None:
    crops = torch.cat(batches(ShardDataModule(config(folder, num_workers=2), 0), 20))
    assert len({crop.numpy().tobytes() for crop in crops}) == 80


def test_levels_are_those_of_the_photographs(folder: Path) -> None:
    module = ShardDataModule(config(folder), 0)
    [batch] = batches(module, 1)
    scaled = module.on_after_batch_transfer(batch, 0)
    assert isinstance(scaled, Tensor)
    assert scaled.dtype == torch.float32
    assert torch.equal(scaled, batch / 255)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_images_come_whole_in_order_every_time(folder: Path, num_workers: int) -> None:
    loader = ShardDataModule(config(folder, num_workers=num_workers), 0).val_dataloader()
    assert not isinstance(loader, list)
    for _ in range(2):
        images = list(loader)
        assert all(isinstance(image, ValImage) for image in images)
        assert [image.name for image in images] == [  # type: ignore[union-attr]
            "00000000_dogs", "00000001_neon", "00000002_peaks", "00000003_stonehenge"
        ]  # fmt: skip
        assert [tuple(image.image.shape) for image in images] == [  # type: ignore[union-attr]
            (1, 3, 961, 640), (1, 3, 512, 512), (1, 3, 640, 853), (1, 3, 600, 800)
        ]  # fmt: skip


def test_the_number_of_validation_images_can_be_bounded(folder: Path) -> None:
    assert len(list(ShardDataModule(config(folder, max_val_images=2), 0).val_dataloader())) == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipped_photographs_are_counted_exactly(folder: Path, tmp_path: Path, num_workers: int) -> None:
    """Two of three photographs in a shard are unusable; every pass over it gives one crop and two skips."""
    write_shards([PHOTOS / "train" / f"{n}.jpg" for n in ("falcon", "moon", "dusk")], tmp_path / "s")
    shard = tmp_path / "s" / "shard-000000.tar"
    broken = shard.read_bytes().replace((PHOTOS / "train" / "dusk.jpg").read_bytes()[:1000], bytes(1000))
    shard.write_bytes(broken)
    changes = {"train": 2 * [str(tmp_path / "s")], "crop_size": 272, "batch_size": 2, "shuffle_buffer": 1}
    tallies = []
    for _ in range(2):
        module = ShardDataModule(config(folder, num_workers=num_workers, **changes), 0)
        assert len(batches(module, 6)) == 6
        tallies.append(module.train_skipped)
    assert tallies[0] == tallies[1]
    # 12 crops. The first crop of a worker waits only for the preceding samples of its shard
    assert abs(tallies[0].num_broken - 12) <= 2
    assert abs(tallies[0].num_small - 12) <= 2
    assert sorted(Path(skipped.name).stem.split("_")[1] for skipped in tallies[0].examples) == ["dusk", "falcon"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_a_worker_is_one_line(folder: Path, num_workers: int) -> None:
    module = ShardDataModule(config(folder, num_workers=num_workers, crop_size=2048), 0)
    with pytest.raises(DataError, match="no photograph is large enough for data") as caught:
        batches(module, 1)
    assert "\n" not in str(caught.value)


def test_missing_shards_are_refused_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    for key in ("train", "val"):
        with pytest.raises(DataError, match=rf"^data\.{key}: .*gone: no such shard"):
            ShardDataModule(config(folder, **{key: [str(tmp_path / "gone")]}), 0)
    with pytest.raises(DataError, match=r"^data\.train: no shards given"):
        ShardDataModule(config(folder, train=[]), 0)


class Recorder(lightning.LightningModule):
    """Model with a single weight that records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []
        self.validated: list[str] = []

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        self.seen.append(batch.clone())
        return (batch.mean() - self.weight) ** 2

    def validation_step(self, batch: ValImage, index: int) -> None:
        self.validated.append(batch.name)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def train(
    folder: Path, tmp_path: Path, steps: int, resume: str | None = None, **changes: Any
) -> tuple[Recorder, ShardDataModule, lightning.Trainer]:
    trainer = lightning.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, val_check_interval=2, check_val_every_n_epoch=None,
        num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    model, module = Recorder(), ShardDataModule(config(folder, **changes), 0)
    trainer.fit(model, module, ckpt_path=resume, weights_only=True)
    return model, module, trainer


def test_a_run_trains_and_validates_through_lightning(folder: Path, tmp_path: Path) -> None:
    model, _, trainer = train(folder, tmp_path, steps=4, num_workers=1)
    assert trainer.global_step == 4
    assert len(model.seen) == 4
    assert all(batch.dtype == torch.float32 and 0 <= batch.min() < batch.max() <= 1 for batch in model.seen)
    assert model.validated == ["00000000_dogs", "00000001_neon", "00000002_peaks", "00000003_stonehenge"] * 2
    again, _, _ = train(folder, tmp_path, steps=4, num_workers=1)
    assert all(torch.equal(a, b) for a, b in zip(model.seen, again.seen, strict=True))


def test_a_run_without_validation_shards_trains(folder: Path, tmp_path: Path) -> None:
    model, _, _ = train(folder, tmp_path, steps=3, val=[])
    assert len(model.seen) == 3
    assert model.validated == []


@pytest.mark.filterwarnings("error:You're resuming from a checkpoint")
def test_a_resumed_run_draws_new_crops_and_continues_counting(folder: Path, tmp_path: Path) -> None:
    changes = {"crop_size": 272, "batch_size": 16}  # one photograph is smaller and counted
    first, before, trainer = train(folder, tmp_path, 3, **changes)
    assert before.train_skipped.num_small > 0
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    runs = [train(folder, tmp_path, 6, str(tmp_path / "last.ckpt"), **changes) for _ in range(2)]
    (second, after, resumed), (third, _, _) = runs
    assert resumed.global_step == 6
    assert len(second.seen) == 3
    crops = [{crop.numpy().tobytes() for batch in run.seen for crop in batch} for run in (first, second)]
    assert not crops[0] & crops[1]
    assert all(torch.equal(a, b) for a, b in zip(second.seen, third.seen, strict=True))
    assert after.train_skipped.num_small > before.train_skipped.num_small


class Place:
    """The trainer's attributes that the data module reads, for ranks other than this process."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.global_rank, self.world_size, self.global_step = rank, world_size, 0
        self.strategy = lightning.pytorch.strategies.SingleDeviceStrategy("cpu")


def test_ranks_share_the_batch_and_the_validation_images(folder: Path) -> None:
    crops: list[set[bytes]] = []
    images: list[str] = []
    for rank in range(2):
        module = ShardDataModule(config(folder, batch_size=6), 0)
        module.trainer = Place(rank, 2)  # type: ignore[assignment]
        drawn = batches(module, 4)
        assert all(batch.shape == (3, 3, 64, 64) for batch in drawn)
        crops.append({crop.numpy().tobytes() for batch in drawn for crop in batch})
        images += [image.name for image in module.val_dataloader()]  # type: ignore[union-attr]
    assert not crops[0] & crops[1]
    assert sorted(images) == ["00000000_dogs", "00000001_neon", "00000002_peaks", "00000003_stonehenge"]


def test_a_batch_that_does_not_divide_is_refused(folder: Path) -> None:
    module = ShardDataModule(config(folder, batch_size=4), 0)
    module.trainer = Place(0, 3)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"data\.batch_size=4: must be a multiple of the 3 training processes"):
        module.train_dataloader()


def test_no_process_is_left_after_the_loader(folder: Path) -> None:
    loader = ShardDataModule(config(folder, num_workers=2), 0).train_dataloader()
    stream = iter(loader)
    next(stream)
    workers: Sequence[Any] = loader._iterator._workers  # type: ignore[union-attr,attr-defined]
    pids = [worker.pid for worker in workers]
    assert len(pids) == 2
    del stream, loader, workers
    gc.collect()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def write_damaged(folder: Path) -> list[str]:
    """Write eight shards of five photographs, of which the second is damaged; cut the last shard within its third."""
    source = folder / "in"
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(source / f"{number:02d}.jpg")
    write_shards([source], folder / "s", ShardOptions(min_side=64, shard_samples=5, shuffle=False))
    paths = sorted((folder / "s").glob("*.tar"))
    for path in paths:
        data, places = bytearray(path.read_bytes()), list(list_members(path))
        data[places[1].offset : places[1].offset + places[1].size] = bytes(places[1].size)
        path.write_bytes(data if path != paths[-1] else data[: places[2].offset + 100])
    return [str(path) for path in paths]


def items_drawn(urls: list[str]) -> Iterator[str]:
    """Yield the outcome of each photograph in the order in which the first worker with seed 0 must draw them."""
    for_shards = np.random.SeedSequence((0, 0, 0, 0, 0)).spawn(3)[0]
    seed = int(for_shards.generate_state(1)[0])
    for shard in webdataset.ResampledShards(urls, deterministic=True, worker_seed=lambda: seed):
        yield from ["sound", "spoiled", "cut"] if shard["url"] == urls[-1] else ["sound", "spoiled", *3 * ["sound"]]


@pytest.mark.parametrize("crops_per_photo", [1, 4])
def test_a_run_trains_through_damage_and_counts_it_exactly(folder: Path, tmp_path: Path, crops_per_photo: int) -> None:
    """One in five photographs and one in eight shards are damaged."""
    urls = write_damaged(tmp_path)
    changes: dict[str, Any] = {"train": urls, "val": [], "batch_size": 16, "shuffle_buffer": 1}
    model, module, _ = train(folder, tmp_path, 80, crops_per_photo=crops_per_photo, **changes)
    assert len(model.seen) == 80
    counts = module.train_skipped
    drawn = Counter(itertools.islice(items_drawn(urls), counts.drawn.photos))
    assert drawn["cut"] > 0
    assert counts.num_broken == drawn["spoiled"] + drawn["cut"]
    assert counts.drawn.broken_shards == drawn["cut"]
    assert counts.num_small == 0
    waiting = 3 * 4 if crops_per_photo == 4 else 0  # photographs whose crops wait for their turn
    batches_fetched = (drawn["sound"] - waiting) * crops_per_photo / 16
    assert batches_fetched in (80, 81)  # Lightning may be one ahead
    assert len(counts.examples) == 9


@pytest.mark.parametrize(("share", "stops"), [(0.2, True), (0.25, False)])
def test_a_run_stops_when_too_many_photographs_are_broken(
    folder: Path, tmp_path: Path, share: float, stops: bool, caplog: pytest.LogCaptureFixture
) -> None:
    changes: dict[str, Any] = {"train": write_damaged(tmp_path), "batch_size": 16, "shuffle_buffer": 1}
    module = ShardDataModule(config(folder, max_broken_share=share, **changes), 0)
    if not stops:
        assert len(batches(module, 90)) == 90
    else:
        with pytest.raises(DataError, match=r"^2\d% of the latest photographs are broken, more than data\.max_") as e:
            batches(module, 90)
        assert "shard-000006.tar/00000031_31.jpg (not an image" in str(e.value)
        assert "\n" not in str(e.value)
        assert 1000 <= module.train_skipped.drawn.photos < 1040
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records) == 9


def test_a_run_stops_when_too_many_shards_are_broken_though_few_photographs_are(folder: Path, tmp_path: Path) -> None:
    """Each intact shard gives nine photographs, and each broken shard counts as a single item."""
    urls = [str(folder / "train" / "shard-000000.tar"), *(str(tmp_path / f"gone-{i}.tar") for i in range(2))]
    shards = Shards(urls, {})
    module = ShardDataModule(config(folder), 0)
    module._train = shards
    with pytest.raises(DataError, match=r"% of the latest shards are broken, more than .*=0\.5, e\.g\. .*gone-"):
        batches(module, 1000)
    assert 100 <= module.train_skipped.drawn.shards < 130


def test_streams_without_their_own_shards_work_with_one_warning(folder: Path) -> None:
    """If there is one shard for two workers, both draw from it, but different crops."""
    module = ShardDataModule(config(folder, train=[str(folder / "val")], num_workers=2), 0)
    with pytest.warns(UserWarning, match=r"data\.train: 1 shard for 2 workers in all processes") as said:
        crops = torch.cat(batches(module, 9))
    assert len(said) == 1
    assert len({crop.numpy().tobytes() for crop in crops}) == 36


def test_more_ranks_than_validation_images_leave_some_with_none(folder: Path) -> None:
    images = []
    for rank in range(6):
        module = ShardDataModule(config(folder, num_workers=1), 0)
        module.trainer = Place(rank, 6)  # type: ignore[assignment]
        images.append([image.name for image in module.val_dataloader()])  # type: ignore[union-attr]
    assert [len(share) for share in images] == [1, 1, 1, 1, 0, 0]


def test_crops_come_through_the_configured_cache_folder(folder: Path, tmp_path: Path) -> None:
    with serving(folder / "train") as server:
        changes: dict[str, Any] = {"train": [server.address()], "cache_dir": str(tmp_path / "kept"), "num_workers": 2}
        first = batches(ShardDataModule(config(folder, **changes), 0), 4)
        second = batches(ShardDataModule(config(folder, **changes), 0), 4)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    downloads = {name: count for name, count in server.requests.items() if name.endswith(".tar")}
    assert set(downloads.values()) == {1}
    assert len(list((tmp_path / "kept").glob("*.tar"))) == len(downloads)
