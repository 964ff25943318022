"""Tests of the command line: real commands, real files, one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import checkpoint
from tests.support.commands import run

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("shards", "train", "evaluate", "classical", "report", "compress", "decompress", "info", "export"),
    "import-compressai",
    "sweep",
)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A checkpoint of an untrained model whose latents are large enough to matter."""
    torch.manual_seed(1)
    model = CompressionModel(ModelConfig(num_filters=16, num_latents=24))
    with torch.no_grad():
        model.g_a[-1].weight.mul_(100)
    path = tmp_path_factory.mktemp("model") / "small.ckpt"
    state = {f"{checkpoint.MODEL}{name}": value for name, value in model.state_dict().items()}
    hyper = {"model": {"rung": "joint", "num_filters": 16, "num_latents": 24}}
    torch.save(
        {checkpoint.FORMAT_KEY: checkpoint.FORMAT, checkpoint.HYPER_PARAMETERS: hyper, "state_dict": state}, path
    )
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    with Image.open(ROOT / "data" / "kodak" / "kodim15.png") as image:
        image.crop((100, 100, 317, 281)).save(path)
    return path


def test_help_is_fast_because_it_imports_nothing_heavy():
    script = "import sys; from jahp_pl.cli.main import _parser; _parser(); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "lightning", "wandb", "omegaconf", "webdataset", "matplotlib", "numpy"):
        assert f"'{heavy}'" not in modules


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, capsys):
    assert run(command, "--help") == 0
    assert f"jahp {command}" in capsys.readouterr().out.split("examples:")[1]


def test_a_photograph_survives_compress_info_decompress(model_file, photo, capsys):
    assert run("compress", photo, "--model", model_file) == 0
    compressed = photo.with_suffix(".jahp")
    assert run("info", compressed) == 0
    assert "217 x 181 pixels" in capsys.readouterr().out
    back = photo.with_name("back.png")
    assert run("decompress", compressed, "-o", back, "--model", model_file) == 0
    with Image.open(back) as decoded:
        pixels = np.asarray(decoded)
    model = checkpoint.load_checkpoint_model(model_file)
    with Image.open(photo) as image:
        x = torch.from_numpy(np.array(image)).movedim(-1, 0)[None] / 255
    with torch.no_grad():
        expected = torch.round(model(x).x_hat[0].clamp(0, 1) * 255)
    assert np.array_equal(pixels, expected.movedim(0, -1).byte().numpy())


def test_info_describes_a_checkpoint(model_file, capsys):
    assert run("info", model_file) == 0
    out = capsys.readouterr().out
    assert "joint" in out
    assert "fingerprint" in out


def test_info_describes_all_below_a_folder_and_names_what_it_cannot_read(model_file, photo, capsys):
    run("compress", photo, "--model", model_file)
    folder = photo.parent
    (folder / "run").mkdir()
    (folder / "run" / "best.ckpt").write_bytes(model_file.read_bytes())
    capsys.readouterr()
    assert run("info", folder) == 0
    out = capsys.readouterr().out
    assert "217 x 181 pixels" in out
    assert "num_latents     24" in out
    (folder / "bad.jahp").write_bytes(b"jahp")
    assert run("info", folder) == 2
    told = capsys.readouterr()
    assert "217 x 181 pixels" in told.out
    assert "bad.jahp: the file is cut short" in told.err


def test_evaluate_leaves_files_results_and_a_picture(model_file, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (3, 4):
        with Image.open(ROOT / "data" / "kodak" / f"kodim{number:02}.png") as image:
            image.crop((0, 0, 192, 200)).save(folder / f"{number}.png")
    out, picture = tmp_path / "r.json", tmp_path / "r.png"
    assert run(
        "evaluate", "--model", model_file, "--images", folder, "--out", out, "--beside", "jpeg", "--picture", picture
    ) == 0  # fmt: skip
    results = json.loads(out.read_text())
    assert [image["name"] for image in results["images"]] == ["3.png", "4.png"]
    for image in results["images"]:
        size = (tmp_path / "r" / image["name"]).with_suffix(".jahp").stat().st_size
        assert image["file_bytes"] == size
        assert image["file_bpp"] == pytest.approx(8 * size / (192 * 200))
        assert image["beside"]["bpp"] > 0
        assert image["mismatched_symbols"] == 0
    assert results["mean"]["file_psnr"] == pytest.approx(np.mean([i["file_psnr"] for i in results["images"]]))
    assert "every latent came back as it was written" in capsys.readouterr().out
    with Image.open(picture) as drawn:
        assert drawn.width > 600


def test_evaluate_keeps_images_of_one_stem_apart(model_file, tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    with Image.open(ROOT / "data" / "kodak" / "kodim05.png") as image:
        for number, name in enumerate(("a.png", "sub/a.png", "sub/b.png")):
            image.crop((0, 0, 32 + 16 * number, 40)).save(folder / name)

    def evaluated(out):
        assert run("evaluate", "--model", model_file, "--images", folder, "--out", tmp_path / f"{out}.json") == 0
        rows = json.loads((tmp_path / f"{out}.json").read_text())["images"]
        made = {str(p.relative_to(tmp_path / out)): p.stat().st_size for p in (tmp_path / out).rglob("*.jahp")}
        return {row["name"]: row["file_bytes"] for row in rows}, made

    rows, made = evaluated("stems")
    assert set(made) == {"a.jahp", "sub/a.jahp", "sub/b.jahp"}
    assert {name.replace(".png", ".jahp"): size for name, size in rows.items()} == made
    with Image.open(folder / "a.png") as image:
        image.crop((0, 0, 20, 20)).save(folder / "a.bmp")
    rows, made = evaluated("suffixes")
    assert set(made) == {"a.bmp.jahp", "a.png.jahp", "sub/a.png.jahp", "sub/b.png.jahp"}
    assert {f"{name}.jahp": size for name, size in rows.items()} == made


MISTAKES = {
    "unknown key": (["train", "model.depth=3"], "model.depth"),
    "wrong type": (["train", "data.batch_size=many"], "data.batch_size"),
    "missing config": (["train", "nowhere.yaml"], "nowhere.yaml"),
    "no shards": (["train", "data.train=[nowhere/]"], "nowhere"),
    "missing model": (["info", "nowhere"], "nowhere"),
    "no images": (["evaluate", "--model", "m.ckpt", "--images", "nowhere"], "nowhere"),
    "missing run": (["export", "nowhere", "--out", "o"], "nowhere"),
    "missing CompressAI checkpoint": (["import-compressai", "nowhere.pth", "--out", "o"], "nowhere.pth"),
    "missing image": (["compress", "nowhere.png", "--model", "m.ckpt"], "nowhere.png"),
    "no photographs": (["shards", "nowhere", "--out", "o"], "nowhere"),
    "foreign checkpoint": (["info", str(ROOT / "README.md")], "README.md"),
}


@pytest.mark.parametrize(("arguments", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_one_line(arguments, named, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("jahp: ")
    assert "\n" not in error
    assert named in error


def test_outputs_that_exist_are_kept_unless_forced(model_file, photo, capsys):
    target = photo.with_suffix(".jahp")
    target.write_bytes(b"precious")
    assert run("compress", photo, "--model", model_file) == 2
    assert "choose another output" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert run("compress", photo, "--model", model_file, "--force") == 0
    assert target.read_bytes()[:4] == b"jahp"


def test_two_inputs_of_one_name_are_refused_before_either_is_lost(model_file, photo, tmp_path, capsys):
    other = tmp_path / "sub" / "photo.png"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    assert run("compress", photo, other, "-o", tmp_path / "out", "--model", model_file) == 2
    assert "have the same output" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused_and_leaves_no_picture(model_file, photo, capsys):
    run("compress", photo, "--model", model_file)
    compressed = photo.with_suffix(".jahp")
    data = bytearray(compressed.read_bytes())
    data[-1] ^= 1
    compressed.write_bytes(data)
    back = photo.with_name("back.png")
    assert run("decompress", compressed, "-o", back, "--model", model_file) == 2
    assert "damaged" in capsys.readouterr().err
    assert not back.exists()


def test_an_unknown_suffix_of_an_output_is_refused(model_file, photo, capsys):
    run("compress", photo, "--model", model_file)
    status = run("decompress", photo.with_suffix(".jahp"), "-o", photo.with_name("x.nope"), "--model", model_file)
    assert status == 2
    assert ".nope" in capsys.readouterr().err


def test_keys_lists_every_setting_with_its_meaning(capsys):
    assert run("train", "--keys") == 0
    out = capsys.readouterr().out
    assert "loss.lmbda" in out
    assert "Trade-off" in out
