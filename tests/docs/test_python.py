"""docs/python.md is correct: its blocks run in order."""

from __future__ import annotations

import math
import shlex
import shutil
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

import jahp_pl
from jahp_pl import settings
from jahp_pl.config import Config, ConfigError
from jahp_pl.training.metric_names import logged_names
from tests.support import pages
from tests.support.commands import run
from tests.support.tiny_runs import SMALL

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*GPU available"),
]


def test_the_page_explains_every_column_of_metrics_csv() -> None:
    page = pages.read("python")
    for distortion in ("mse", "ms_ssim"):
        config = settings.load_config("data.val=[x]", f"loss.distortion={distortion}")
        missing = [name for name in logged_names(config) if f"`{name}`" not in page]
        assert not missing


def test_every_block_runs_with_the_output_on_the_page(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").symlink_to(shards)
    shutil.copytree(pages.ROOT / "configs", "configs")

    def small(*arguments: str) -> Config:
        """Load as printed, but with a few thousand weights and four steps."""
        return settings.load_config(*arguments, *SMALL, "trainer.max_steps=4", "trainer.val_every_steps=2")

    monkeypatch.setattr(jahp_pl, "load_config", small, raising=False)
    names: dict[str, object] = {}
    for language, block in pages.blocks(pages.read("python")):
        if language == "sh":
            assert [run(*shlex.split(line)[1:]) for line in block.splitlines()] == [0]
        else:
            exec(block, names)
    assert Path("runs/first/checkpoints/best.ckpt").exists()
    assert Path("runs/first/training.png").stat().st_size > 10_000
    assert Path("runs/first/training.svg").exists()
    logged = [path.read_text() for path in Path("logs").rglob("metrics.csv")]
    assert len(logged) == 2
    assert all("val/psnr" in text and "train/loss" in text for text in logged)
    assert any("lr-Adam" in text for text in logged)
    metrics, trainer = names["metrics"], names["trainer"]
    assert isinstance(metrics, dict)
    assert math.isfinite(metrics["val/psnr"])
    assert isinstance(trainer, Trainer)
    assert trainer.global_step == 2
    assert "val/psnr" in trainer.callback_metrics
    codec, module = names["codec"], names["module"]
    assert isinstance(codec, jahp_pl.Codec)
    assert isinstance(module, jahp_pl.CompressionModule)
    assert codec.model.config == module.config.model


@pytest.mark.parametrize("take", [jahp_pl.train, jahp_pl.CompressionModule, jahp_pl.ShardDataModule])
def test_a_path_in_place_of_a_configuration_is_refused_with_the_way_to_load_it(take) -> None:
    with pytest.raises(ConfigError, match=r"config: must be a \w*Config, not str; (load one with|pass the part)"):
        take("configs/quickstart.yaml")
