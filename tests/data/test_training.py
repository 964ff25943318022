"""A data module feeds a Lightning training, and gives new crops after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.data_modules import train_recorder


def test_a_run_trains_and_validates_through_lightning(photo_shards: Path, tmp_path: Path) -> None:
    model, _, trainer = train_recorder(photo_shards, tmp_path, steps=4, num_workers=1)
    assert trainer.global_step == 4
    assert len(model.seen) == 4
    assert all(batch.dtype == torch.float32 and 0 <= batch.min() < batch.max() <= 1 for batch in model.seen)
    assert model.validated == ["00000000_dogs", "00000001_neon", "00000002_peaks", "00000003_stonehenge"] * 2
    again, _, _ = train_recorder(photo_shards, tmp_path, steps=4, num_workers=1)
    assert all(torch.equal(a, b) for a, b in zip(model.seen, again.seen, strict=True))


def test_a_run_without_validation_shards_trains(photo_shards: Path, tmp_path: Path) -> None:
    model, _, _ = train_recorder(photo_shards, tmp_path, steps=3, val=[])
    assert len(model.seen) == 3
    assert model.validated == []


@pytest.mark.filterwarnings("error:You're resuming from a checkpoint")
def test_a_resumed_run_draws_new_crops_and_continues_counting(photo_shards: Path, tmp_path: Path) -> None:
    changes = {"crop_size": 272, "batch_size": 16}  # one photograph is smaller and counted
    first, before, trainer = train_recorder(photo_shards, tmp_path, 3, **changes)
    assert before.train_skipped.num_small > 0
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    runs = [train_recorder(photo_shards, tmp_path, 6, str(tmp_path / "last.ckpt"), **changes) for _ in range(2)]
    (second, after, resumed), (third, _, _) = runs
    assert resumed.global_step == 6
    assert len(second.seen) == 3
    crops = [{crop.numpy().tobytes() for batch in run.seen for crop in batch} for run in (first, second)]
    assert not crops[0] & crops[1]
    assert all(torch.equal(a, b) for a, b in zip(second.seen, third.seen, strict=True))
    assert after.train_skipped.num_small > before.train_skipped.num_small
