"""Two real processes that train together, started by `jahp train` itself and by torchrun."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from jahp_pl.config import ConfigError
from jahp_pl.model_io.checkpoint import read_checkpoint
from jahp_pl.settings import load_config
from jahp_pl.training.callbacks import file_names_by_rank, interleave_ranks
from jahp_pl.training.processes import check_launch
from jahp_pl.training.run import build_trainer, train
from tests.support.launching import JAHP, TORCHRUN, has_logged, output_of, script, settings_of, started, wait_until
from tests.support.ranks import fixed_steps, real_config
from tests.support.tiny_runs import all_equal, tiny_config

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of two ranks of `ranks.py`."""
    path = tmp_path_factory.mktemp("ranks")
    status, output = output_of([*TORCHRUN, "-m", "tests.support.ranks", path, shards], PYTHONPATH=str(ROOT))
    assert status == 0, output
    return path


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


def csv_rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


# Steps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["fixed", "soap"])
def test_after_twenty_steps_both_ranks_have_the_same_weights_average_and_gradients(
    run: str, ranks: list[dict[str, Any]]
) -> None:
    """Only one of them got the damaged batch, but both skipped that step."""
    first, second = (rank[run] for rank in ranks)
    for name in ("weights", "average", "gradients"):
        assert all_equal(first[name], second[name])
    assert first["skipped"] == second["skipped"] == 1


def test_twenty_steps_of_two_ranks_are_those_of_one_process_on_the_same_global_batches(
    ranks: list[dict[str, Any]], shards: Path, tmp_path: Path
) -> None:
    """They agree up to rounding, which Adam amplifies where a gradient is nearly 0 because it divides by its size."""
    alone, together = fixed_steps(tmp_path, shards, 0, 1), ranks[0]["fixed"]
    assert all_equal(alone["start"], together["start"])
    assert max(float((a - b).abs().max()) for a, b in zip(alone["start"], alone["weights"], strict=True)) > 1e-3
    assert alone["skipped"] == together["skipped"] == 1
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    for name in ("weights", "average", "gradients"):
        for a, b in zip(alone[name], together[name], strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_no_rank_sees_a_crop_of_another(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["images-3"]["crops"] for rank in ranks)
    assert len(first) == len(second) == 8
    assert len({*first, *second}) == 16


# Validation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_images", [3, 1])
def test_every_image_is_validated_and_coded_once_and_the_figures_are_those_of_one_process(
    num_images: int, ranks: list[dict[str, Any]], folder: Path, shards: Path, tmp_path: Path
) -> None:
    name = f"images-{num_images}"
    seen = [set(rank[name]["validated"]) for rank in ranks]
    assert not seen[0] & seen[1]
    for step in (2, 4):
        assert len({image for at, image in seen[0] | seen[1] if at == step}) == num_images
    assert len(seen[0] | seen[1]) == 2 * num_images == sum(len(rank[name]["validated"]) for rank in ranks)

    # Validate the same weights again: the last checkpoint states that a validation is due, and one process performs it.
    alone = real_config(tmp_path, shards, num_images, devices=1)
    shutil.copytree(folder / name, alone.run_dir)
    last = alone.run_dir / "checkpoints" / "last.ckpt"
    content = read_checkpoint(last)
    content["training"]["validation_due"] = True
    torch.save(content, last)
    result = train(alone)
    together = ranks[0][name]["metrics"]
    assert result.steps == 4
    assert set(result.metrics) == set(together)
    assert (together["val/images"], together["val/coded_images"], together["val/mismatched_symbols"]) == (
        num_images, num_images, 0,
    )  # fmt: skip
    for key, value in result.metrics.items():
        if "seconds" not in key:
            assert together[key] == pytest.approx(value, rel=1e-6, nan_ok=True), key
    reports = [json.loads((d / "coding/step-0000004/report.json").read_text()) for d in (folder / name, alone.run_dir)]
    names = [[image["name"] for image in report["images"]] for report in reports]
    assert names[0] == names[1] == sorted(set(names[0]))
    assert len(names[0]) == num_images
    assert sorted(path.stem for path in (folder / name / "coding" / "step-0000004").glob("*.jahp")) == names[0]


def test_one_rank_writes_metrics_and_one_run_of_wandb(folder: Path) -> None:
    rows = csv_rows(folder / "images-3")
    assert [row["step"] for row in rows if row["train/loss"]] == ["2", "4"]
    assert [row["step"] for row in rows if row["val/loss"]] == ["2", "4"]
    assert [row["step"] for row in rows if row["val/file_bpp"]] == ["2", "4"]
    assert len(list((folder / "images-3" / "wandb").glob("offline-run-*"))) == 1
    assert not list((folder / "images-3").rglob("*.part"))


def test_images_with_the_same_name_on_several_ranks_are_named_as_in_one_process() -> None:
    [alone] = file_names_by_rank([["a", "a", "b", "a"]])
    first, second = file_names_by_rank([["a", "b"], ["a", "a"]])
    assert alone == interleave_ranks([first, second]) == ["a", "a-2", "b", "a-3"]
    assert file_names_by_rank([["a"], []]) == [["a"], []]


# Starting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", [JAHP, (*TORCHRUN, "-m", "jahp_pl")], ids=["jahp", "torchrun"])
def test_a_batch_that_does_not_divide_ends_with_one_line(
    launcher: tuple[str, ...], shards: Path, tmp_path: Path
) -> None:
    file = settings_of(tiny_config(tmp_path, shards))
    status, output = output_of([*launcher, "train", file, "data.batch_size=3", "trainer.devices=2"])
    lines = [line for line in output.splitlines() if "jahp: " in line]
    message = "data.batch_size=3: must be a multiple of the 2 processes (trainer.devices x trainer.num_nodes)"
    assert lines == [f"jahp: {message}"]
    assert status == (2 if launcher == JAHP else 1)  # torchrun has its own exit code
    if launcher == JAHP:
        assert output.splitlines() == lines
    assert not (tmp_path / "joint").exists()


def test_a_wrong_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    two = load_config("trainer.devices=2").trainer
    check_launch(two)
    for starter, variables in (
        ("torchrun", {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"}),
        ("SLURM", {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NAME": "training"}),
    ):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(ConfigError, match=f"makes 2 processes, but {starter} started 4; set") as refusal:
                check_launch(two)
            assert "\n" not in str(refusal.value)
            check_launch(load_config("trainer.devices=2", "trainer.num_nodes=2").trainer)


def test_more_processes_than_a_machine_can_run_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^trainer.devices=9999: is more than the [0-9]+ processes that are allowed"):
        check_launch(load_config("trainer.devices=9999", "data.batch_size=9999").trainer)


@pytest.mark.skipif(torch.cuda.is_available() or torch.mps.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_the_machine_lacks_is_named_in_one_line(tmp_path: Path) -> None:
    config = load_config(f"output_dir={tmp_path}", "trainer.accelerator=gpu")
    with pytest.raises(ConfigError, match=r"^trainer.accelerator=gpu, trainer.devices=1: this machine lacks them"):
        build_trainer(config, [], [])


def test_ranks_that_resume_from_other_steps_or_with_other_settings_are_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        agreed, steps, settings = rank["refusals"]
        assert agreed == ""
        assert "start from different steps: 0, 5; all machines must see the same " in steps
        assert "different settings; start the same command on all machines" in settings
        assert "\n" not in steps + settings


# Stopping and going on ------------------------------------------------------------------------------------------------


def test_a_stopped_run_of_two_ranks_continues_with_torchrun_and_with_one_process(shards: Path, tmp_path: Path) -> None:
    settings = ("trainer.devices=2", "trainer.val_every_steps=100000", "trainer.max_steps=100000", "data.num_workers=1")
    config = tiny_config(tmp_path, shards, *settings, "wandb.mode=offline", "coding.max_images=1")
    with started([*JAHP, "train", settings_of(config)]) as process:
        wait_until(has_logged(config, 4), process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    last = config.run_dir / "checkpoints" / "last.ckpt"
    steps = read_checkpoint(last)["global_step"]
    assert process.returncode == 128 + signal.SIGTERM, output
    sentence = f"joint: stopped after step {steps} (SIGTERM); run the same command again to continue"
    assert output.count("stopped after") == output.count(sentence) == 1
    assert "Traceback" not in output

    more = (f"trainer.max_steps={steps + 2}", "trainer.log_every_steps=1")
    status, output = output_of([*TORCHRUN, "-m", "jahp_pl", "train", settings_of(config), *more])
    assert status == 0, output
    assert f"2 x cpu in 32-true, steps {steps} to {steps + 2}" in output.replace("bf16-mixed", "32-true")
    assert output.count("trained: ") == 1
    assert read_checkpoint(last)["global_step"] == steps + 2

    alone = tiny_config(tmp_path, shards, "trainer.max_steps=100", "trainer.log_every_steps=1", "data.batch_size=4")
    alone.trainer.max_steps = steps + 4
    assert train(alone).steps == steps + 4
    logged = [int(row["step"]) for row in csv_rows(config.run_dir) if row["train/loss"]]
    assert logged == sorted(set(logged))
    assert logged[-4:] == list(range(steps + 1, steps + 5))
    moments = read_checkpoint(last)["optimizer_states"][0]["state"].values()
    assert {float(state["step"]) for state in moments} == {float(steps + 4)}
    assert len({path.name.split("-")[-1] for path in (config.run_dir / "wandb").glob("offline-run-*")}) == 1


def test_two_ranks_leave_a_validation_at_once_on_a_signal_to_stop(shards: Path, tmp_path: Path) -> None:
    """One process gets the signal while it measures an image and passes it on to the other; neither waits."""
    config = tiny_config(tmp_path, shards, "trainer.devices=2", "trainer.max_steps=4")
    body = (
        "import pathlib, time\n"
        "from jahp_pl.training import run\n"
        "class Slow(run.CompressionModule):\n"
        "    def validation_step(self, batch, batch_idx):\n"
        f"        pathlib.Path({str(tmp_path)!r}, f'validating-{{self.global_rank}}').touch()\n"
        "        time.sleep(1000)\n"
        "run.CompressionModule = Slow\n"
        "train(config)\n"
    )
    with started(script(config, body)) as process:
        wait_until(lambda: len(list(tmp_path.glob("validating-*"))) == 2, process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.count("joint: stopped after step 4 (SIGTERM)") == 1
    assert "Traceback" not in output
    result = train(tiny_config(tmp_path, shards, "trainer.max_steps=4"))
    assert (result.steps, result.metrics["val/images"]) == (4, 3)
