"""Checkpoints are accepted if they are complete, plain and from this project; others are refused in one line."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jahp_pl.config import to_dict
from jahp_pl.errors import WriteError
from jahp_pl.model_io.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint_model,
    read_checkpoint,
    read_newest,
)
from jahp_pl.model_io.compressai import load_compressai
from jahp_pl.settings import load_config
from jahp_pl.training.checkpoints import AtomicCheckpointIO
from jahp_pl.training.run import TrainResult, train
from tests.support.launching import output_of, script
from tests.support.permissions import forbid
from tests.support.tiny_runs import NOTHING_CODED, rows, tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_checkpoints_hold_plain_values_only(finished: TrainResult) -> None:
    assert finished.best is not None
    for path in (finished.last, finished.best):
        content = torch.load(path, weights_only=True)
        assert content["hyper_parameters"] == to_dict(load_config(str(finished.run_dir / "config.yaml")))
        assert {key.split(".")[0] for key in content["state_dict"]} == {"model", "average"}


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(finished: TrainResult) -> None:
    losses = {int(row["step"]): float(row["val/loss"]) for row in rows(finished) if row["val/loss"]}
    assert finished.best is not None
    assert read_checkpoint(finished.best)["global_step"] == min(losses, key=lambda step: losses[step])


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(shards: Path, tmp_path: Path) -> None:
    """A limit on file sizes causes the same error as a full disk, at the same place."""
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
    _, output = output_of(script(config, body))
    (line,) = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert re.search(r"WriteError .*last\.ckpt: cannot be written \(File too large\).*is kept\. Free some space", line)
    assert good.last.read_bytes() == content
    assert sorted(path.name for path in good.last.parent.iterdir()) == ["best.ckpt", "last-1.ckpt", "last.ckpt"]


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


def test_a_foreign_checkpoint_is_refused_in_one_line(finished: TrainResult, tmp_path: Path) -> None:
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
        (tmp_path, "has no checkpoint"),
        (written("empty.ckpt", b""), "cut short"),
        (written("short.ckpt", content[: len(content) // 2]), "cut short"),
        (written("damaged.ckpt", content[:20000] + bytes(2000) + content[22000:]), "damaged"),
        (written("text.ckpt", b"hello " * 1000), "not a checkpoint"),
        (tmp_path / "other.ckpt", "not a checkpoint of jahp_pl"),
        (tmp_path / "code.ckpt", "more than tensors"),
        (saved("newer.ckpt", jahp_pl_format=2), "newer than this jahp_pl reads; upgrade"),
        (saved("lacking.ckpt", state_dict=lacking), "g_s.0.weight is missing"),
        (saved("reshaped.ckpt", state_dict=reshaped), r"g_a.0.bias has shape \(3,\) instead of \(8,\)"),
        (saved("foreign.ckpt", state_dict=foreign), "g_a.99.bias is unknown"),
        (saved("wider.ckpt", hyper_parameters={"model": model}), "g_a.0.weight has shape"),
        (saved("bare.ckpt", hyper_parameters={}), r"layout of a jahp_pl checkpoint \(hyper_parameters.model\)"),
    ]
    for path, words in cases:
        with pytest.raises(CheckpointError, match=words) as refusal:
            load_checkpoint_model(find_checkpoint(path))
        assert "\n" not in str(refusal.value)
        assert str(path) in str(refusal.value)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    finished: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, training would resume from an older one."""
    forbid(monkeypatch, finished.last)
    with pytest.raises(PermissionError):
        read_checkpoint(finished.last)
    with pytest.raises(PermissionError):
        read_newest(finished.last.parent)
    with pytest.raises(PermissionError):
        load_compressai(finished.last)


def test_a_run_folder_means_its_best_checkpoint(finished: TrainResult, tmp_path: Path) -> None:
    assert find_checkpoint(finished.run_dir) == finished.best
    (tmp_path / "last.ckpt").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "last.ckpt"


def test_a_small_checkpoint_cannot_ask_for_a_big_model_and_must_hold_finite_numbers(
    finished: TrainResult, tmp_path: Path
) -> None:
    content = read_checkpoint(finished.last)
    name = next(key for key in content["state_dict"] if key.startswith("average.g_s"))
    spoiled = content["state_dict"][name].clone()
    spoiled.view(-1)[0] = float("nan")
    model = content["hyper_parameters"]["model"]
    big, absurd = (content["hyper_parameters"] | {"model": model | {"num_filters": n}} for n in (4096, 10**6))
    for changed, words in (
        ({"state_dict": content["state_dict"] | {name: spoiled}}, "is not finite"),
        ({"hyper_parameters": big}, "does not fit its own configuration"),
        ({"hyper_parameters": absurd}, "its configuration cannot be read .model.num_filters=1000000: must be from 1"),
        ({"state_dict": [1]}, "does not have the layout of a jahp_pl checkpoint"),
        ({"jahp_pl_format": "1"}, "does not have the layout of a jahp_pl checkpoint"),
        (
            {"training": {"seconds": float("nan"), "skipped_steps": 0}},
            "layout of a jahp_pl checkpoint .training.seconds",
        ),
        ({"training": 3}, "layout of a jahp_pl checkpoint .training"),
        ({"global_step": "7"}, "layout of a jahp_pl checkpoint .global_step"),
        ({"hyper_parameters": {"model": model, "data": []}}, "layout of a jahp_pl checkpoint .hyper_parameters.data"),
    ):
        torch.save(content | changed, tmp_path / "x.ckpt")
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint_model(tmp_path / "x.ckpt")


@pytest.mark.parametrize("missing", ["global_step", "training", "callbacks"])
def test_a_checkpoint_that_cannot_be_continued_is_named(missing: str, finished: TrainResult, tmp_path: Path) -> None:
    content = read_checkpoint(finished.last)
    del content[missing]
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=f"last.ckpt: lacks {missing}, so the run cannot be resumed"):
        read_newest(tmp_path)


def test_malformed_content_is_refused_in_plain_words(finished: TrainResult, tmp_path: Path) -> None:
    path, content = tmp_path / "last.ckpt", read_checkpoint(finished.last)
    settings = content["hyper_parameters"]
    circular: list[object] = []
    circular.append(circular)
    for changed, words in (
        ({"model": 0.5}, r"layout.*\(hyper_parameters\.model\)"),
        ({"model": {5: 1, "x": 2}}, r"model\.5: is unknown"),
        ({"optim": {"x": torch.zeros(3)}}, r"layout.*\(hyper_parameters\)"),
        ({"optim": {"x": circular}}, r"layout.*\(hyper_parameters\)"),
    ):
        torch.save(content | {"hyper_parameters": settings | changed}, path)
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint_model(path)
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for end, data in ((".storage_alignment", b".x"), ("data.pkl", b"\x80\x02X\x01")):  # no number, a text cut short
        with zipfile.ZipFile(path, "w") as archive:
            for name in files:
                archive.writestr(name, data if name.endswith(end) else files[name])
        with pytest.raises(
            CheckpointError, match=r"last\.ckpt: is damaged \(its data is malformed\); use another one$"
        ):
            read_checkpoint(path)
