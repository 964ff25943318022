"""Validation codes images to real files, and logs and draws the results."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.patches import Rectangle
from PIL import Image

from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.codec.codec import Codec
from jahp_pl.config import ModelConfig
from jahp_pl.data.pipeline import ValImage
from jahp_pl.measurement.roundtrip import CodedImage, code_image
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import load_checkpoint_model
from jahp_pl.training.callbacks import CodingCallback, coding_report, coding_summary, unique_file_name
from jahp_pl.training.figures import bits_per_pixel, channel_chart, comparison_figure
from jahp_pl.training.run import TrainResult, train
from tests.support.tiny_runs import tiny_config


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> TrainResult:
    """A run of eight steps with a validation after four and after eight, with W&B offline."""
    folder = tmp_path_factory.mktemp("callbacks")
    return train(tiny_config(folder / "runs", shards, "wandb.mode=offline", "wandb.tags=[test]", "optim.ema_decay=0.9"))


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(2)
    return Codec(CompressionModel(ModelConfig(num_filters=8, num_latents=12)))


@pytest.fixture
def coded(codec: Codec, photos: torch.Tensor, tmp_path: Path) -> CodedImage:
    image = (photos[0, :, :100, :70] * 255).to(torch.uint8)
    return code_image(codec, image, "photo", tmp_path / "photo.jahp")


# Files ----------------------------------------------------------------------------------------------------------------


def test_the_report_has_the_sizes_of_the_files_on_disk(result: TrainResult) -> None:
    folder = result.run_dir / "coding" / "step-0000008"
    content = json.loads((folder / "report.json").read_text())
    assert content["step"] == 8
    assert len(content["images"]) == 2
    for row in content["images"]:
        size = (folder / f"{row['name']}.jahp").stat().st_size
        assert row["file_bytes"] == size
        assert row["file_bpp"] == 8 * size / (row["width"] * row["height"])


def test_a_file_of_a_run_is_decoded_with_its_last_checkpoint_alone(result: TrainResult) -> None:
    """Encoder and decoder use the averaged weights."""
    folder = result.run_dir / "coding" / "step-0000008"
    decoder = Codec(load_checkpoint_model(result.last))
    for path in folder.glob("*.jahp"):
        row = next(r for r in json.loads((folder / "report.json").read_text())["images"] if r["name"] == path.stem)
        assert decoder.decompress(path.read_bytes()).shape == (3, row["height"], row["width"])
    with pytest.raises(BitstreamError):
        Codec(load_checkpoint_model(result.last, average=False)).decompress(path.read_bytes())


def test_coded_images_are_logged_and_decode_exactly(result: TrainResult) -> None:
    metrics = result.metrics
    assert metrics["val/mismatched_symbols"] == 0
    assert metrics["val/coded_images"] == 2
    assert metrics["val/uncodable_images"] == 0
    gap = 100 * (metrics["val/file_bpp"] / metrics["val/cross_entropy_bpp"] - 1)
    assert metrics["val/file_gap_percent"] == pytest.approx(gap, rel=1e-3)
    assert metrics["val/encode_seconds"] > 0
    assert metrics["val/decode_seconds"] > 0
    with (result.run_dir / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/file_bpp"]]
    assert [row["step"] for row in rows] == ["4", "8"]
    assert float(rows[-1]["val/file_psnr"]) == pytest.approx(metrics["val/file_psnr"], rel=1e-5)


def test_only_the_files_and_pictures_of_the_last_validation_are_kept(result: TrainResult) -> None:
    for folder in ("coding", "pictures"):
        assert [path.name for path in (result.run_dir / folder).iterdir()] == ["step-0000008"]
    assert not list(result.run_dir.rglob("*.part"))


def test_images_that_cannot_be_coded_are_counted_and_do_not_stop_the_run(tmp_path: Path) -> None:
    model = CompressionModel(ModelConfig(num_filters=8, num_latents=12))
    with torch.no_grad():
        model.g_a[-1].bias.fill_(1e9)
    logged: dict[str, float] = {}
    trainer = SimpleNamespace(
        global_step=1,
        global_rank=0,
        world_size=1,
        is_global_zero=True,
        sanity_checking=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        loggers=[],
        callback_metrics={},
    )
    callback = CodingCallback(tmp_path / "coding", max_images=3)
    module = _module_around(model, trainer, logged)
    for number in range(2):
        image = ValImage(f"photo{number}", torch.rand(1, 3, 32, 48))
        callback.on_validation_batch_end(trainer, module, None, image, number)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="cannot be coded"):
        callback.on_validation_epoch_end(trainer, module)  # type: ignore[arg-type]
    assert logged == {"val/uncodable_images": 2}
    assert json.loads((tmp_path / "coding" / "step-0000001" / "report.json").read_text())["images"] == []
    assert callback.coded == []


def _module_around(model: CompressionModel, trainer: SimpleNamespace, logged: dict[str, float]):  # type: ignore[no-untyped-def]
    from jahp_pl.config import Config
    from jahp_pl.training.module import CompressionModule

    class Recording(CompressionModule):
        def log_dict(self, values, **options):  # type: ignore[no-untyped-def, override]
            logged.update(values)

    module = Recording(Config(model=model.config))
    module.model.load_state_dict(model.state_dict())
    module._trainer = trainer  # type: ignore[assignment]
    return module


@pytest.mark.parametrize(("max_images", "world_size"), [(5, 2), (2, 3), (0, 2), (4, 1)])
def test_ranks_share_the_images_to_code(max_images: int, world_size: int, tmp_path: Path) -> None:
    kept = 0
    for rank in range(world_size):
        callback = CodingCallback(tmp_path, max_images)
        trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        for number in range(9):
            image = ValImage(f"{number}", torch.zeros(1, 3, 16, 16))
            callback.on_validation_batch_end(trainer, None, None, image, number)  # type: ignore[arg-type]
        kept += len(callback._waiting)
    assert kept == max_images


def test_names_of_images_become_names_of_files() -> None:
    assert unique_file_name("a/b c:d.x", []) == "a_b_c_d.x"
    assert unique_file_name("photo", ["photo", "photo-2"]) == "photo-3"
    assert unique_file_name("../..", []) == "image"
    long = unique_file_name("\u732b" * 300, [])
    assert len(f"{long}-level-0.333.jahp".encode()) < 255


def test_a_report_is_json_also_where_a_mean_does_not_exist(coded: CodedImage) -> None:
    means = coding_summary([coded.row])
    assert np.isnan(means["val/file_ms_ssim"])  # the image is too small
    content = json.loads(coding_report(3, [coded.row], means), parse_constant=lambda name: pytest.fail(name))
    assert content["mean"]["val/file_ms_ssim"] is None
    assert content["images"][0]["name"] == "photo"


# Pictures -------------------------------------------------------------------------------------------------------------


def test_pictures_lie_in_the_run_folder_and_in_that_of_wandb(result: TrainResult) -> None:
    folder = result.run_dir / "pictures" / "step-0000008"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 2  # one image, as requested, and the channels
    assert "channels.png" in names
    for name in names:
        with Image.open(folder / name) as picture:
            pixels = np.asarray(picture.convert("RGB"))[::4, ::4]
        assert min(pixels.shape[:2]) > 75
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    media = [path.name for path in (result.run_dir / "wandb").rglob("*.png")]
    assert len(media) == 4  # two validations
    assert any(name.startswith("channels") for name in media)


def test_the_map_of_bits_holds_every_bit_once(coded: CodedImage) -> None:
    spread = bits_per_pixel(coded.bits_y, coded.bits_z)
    assert spread.shape == coded.bits_y.shape[1:]
    total = float(coded.bits_y.sum() + coded.bits_z.sum())
    assert float(spread.sum()) * 16**2 == pytest.approx(total, rel=1e-5)
    without_z = bits_per_pixel(coded.bits_y, torch.zeros(0, 0, 0))
    assert float(without_z.sum()) * 16**2 == pytest.approx(float(coded.bits_y.sum()), rel=1e-5)


def test_the_caption_has_rate_and_psnr(coded: CodedImage) -> None:
    figure = comparison_figure(coded)
    titles = " ".join(axes.get_title() for axes in figure.axes)
    assert f"{coded.row.file_bpp:.3f} bpp, {coded.row.file_psnr:.2f} dB" in titles
    assert any("bits per pixel" in axes.get_ylabel() for child in figure.axes for axes in [child, *child.child_axes])


def test_channels_are_sorted_by_what_they_cost(coded: CodedImage) -> None:
    for image, num_panels in ((coded, 2), (coded._replace(bits_z=torch.zeros(0, 0, 0)), 1)):
        figure = channel_chart([image, image])
        assert len(figure.axes) == num_panels
        for axes, bits in zip(figure.axes, (coded.bits_y, coded.bits_z), strict=False):
            heights = [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]
            assert heights == sorted(heights, reverse=True)
            assert sum(heights) == pytest.approx(float(bits.sum()) / (100 * 70), rel=1e-4)


# Weights & Biases -----------------------------------------------------------------------------------------------------


def test_wandb_offline_leaves_a_run_that_can_be_sent_later(result: TrainResult) -> None:
    (run_file,) = (result.run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    content = run_file.read_bytes()
    assert (result.run_dir / "wandb" / "run_id").read_text() in run_file.name
    for key in (b"train/loss", b"val/file_bpp", b"trainer/global_step", b"model.num_filters", b"pictures/channels"):
        assert key in content, key
