"""Tests of the command line: real commands, real files, one line for every mistake."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.cli.command_line import _parser
from jahp_pl.cli.main import main
from jahp_pl.cli.options import num_bytes
from jahp_pl.cli.process import WAITING
from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import checkpoint, pretrained
from tests.support.commands import run

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("shards", "train", "evaluate", "classical", "report", "compress", "decompress", "info", "export"),
    "export-graphs",
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
    hyper = {"model": {"entropy_model": "joint", "num_filters": 16, "num_latents": 24}}
    torch.save(
        {
            checkpoint.CHECKPOINT_FORMAT_KEY: checkpoint.CHECKPOINT_FORMAT,
            checkpoint.HYPER_PARAMETERS: hyper,
            "state_dict": state,
        },
        path,
    )
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    with Image.open(ROOT / "data" / "kodak" / "kodim15.png") as image:
        image.crop((100, 100, 317, 281)).save(path)
    return path


def test_help_is_fast_because_it_imports_nothing_heavy():
    script = "import sys; from jahp_pl.cli.command_line import _parser; _parser(); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "lightning", "wandb", "omegaconf", "webdataset", "matplotlib", "numpy"):
        assert f"'{heavy}'" not in modules


def test_info_of_a_file_is_fast_because_it_imports_nothing_heavy():
    script = "import sys; from jahp_pl.cli.main import main; main(['info', sys.argv[1]]); print(sorted(sys.modules))"
    words = [sys.executable, "-c", script, str(ROOT / "tests" / "golden" / "joint.jahp")]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "sRGB" in shown
    for heavy in ("torch", "numpy", "PIL"):
        assert f"'{heavy}'" not in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, capsys):
    assert run(command, "--help") == 0
    assert f"jahp {command}" in capsys.readouterr().out.split("examples:")[1]


def test_a_former_name_of_a_command_works_and_is_not_shown(capsys):
    assert run("graphs", "--help") == 0
    assert "jahp export-graphs models/mbt2018" in capsys.readouterr().out
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert "\n    export-graphs " in shown
    assert "\n    graphs " not in shown


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
    output = capsys.readouterr()
    assert "217 x 181 pixels" in output.out
    assert "bad.jahp: the file is cut short" in output.err


def test_evaluate_leaves_files_results_and_a_picture(model_file, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (3, 4):
        with Image.open(ROOT / "data" / "kodak" / f"kodim{number:02}.png") as image:
            image.crop((0, 0, 192, 200)).save(folder / f"{number}.png")
    out, picture = tmp_path / "r.json", tmp_path / "r.png"
    assert run(
        "evaluate", "--model", model_file, "--images", folder, "--out", out, "--compare", "jpeg", "--picture", picture
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


def test_evaluate_keeps_images_with_the_same_stem_apart(model_file, tmp_path):
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


def test_info_follows_no_links_to_folders(tmp_path, capsys):
    for name in ("a", "b", "c"):
        (tmp_path / name).symlink_to(tmp_path)
    assert run("info", tmp_path) == 2
    assert "has no checkpoint, export or .jahp file" in capsys.readouterr().err


def test_info_knows_a_compressed_file_by_its_first_bytes_and_gives_the_quality_asked_for(photo, capsys):
    renamed = photo.with_name("renamed.bin")
    assert run("compress", photo, "-o", renamed, "--quality", "37", "--effort", "0") == 0
    capsys.readouterr()
    assert run("info", renamed) == 0
    rows = {line[:15].strip(): line[16:] for line in capsys.readouterr().out.splitlines()}
    assert rows["image"] == "217 x 181 pixels"
    assert rows["quality"].startswith("37.0 (rate level ")


def test_an_input_of_another_kind_is_reported_before_its_output(photo, tmp_path, capsys):
    photo.with_suffix(".decoded.png").write_bytes(b"in the way")
    assert run("decompress", photo) == 2
    assert "photo.png: not a .jahp file" in capsys.readouterr().err
    assert run("decompress", photo, "-o", photo) == 2
    assert "photo.png: not a .jahp file" in capsys.readouterr().err
    compressed = photo.with_suffix(".jahp")
    compressed.write_bytes(b"jahp")
    assert run("compress", compressed) == 2
    assert "photo.jahp: is already a .jahp file" in capsys.readouterr().err
    (tmp_path / "photo.txt").write_text("no image")
    assert run("compress", tmp_path / "photo.txt") == 2
    assert "photo.txt: not an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--min-side", "0"], "--min-side 0: must be at least 1"),
        (["--min-side", "-5"], "--min-side -5: must be at least 1"),
        (["--min-side", "9999"], "1 with a side under --min-side 9999, 0 over --max-pixels 67108864"),
        (["--max-side", "100"], "--max-side 100: must be at least --min-side 256"),
        (["--tile", "100"], "--tile 100: must be at least 512"),
        (["--quality", "101"], "--quality 101: must be"),
        (["--shard-samples", "0"], "--shard-samples 0: must be"),
    ],
)
def test_messages_about_shards_name_options_as_they_are_given(options, named, photo, capsys):
    assert run("shards", photo, "-o", photo.with_name("shards"), *options) == 2
    assert named in capsys.readouterr().err


def test_info_refuses_an_image_as_what_it_is(photo, capsys):
    assert run("info", photo) == 2
    assert "photo.png: is an image, not a .jahp file or a model" in capsys.readouterr().err


def test_a_compressed_file_does_not_get_the_suffix_of_an_image(photo, capsys):
    target = photo.with_name("out.webp")
    assert run("compress", photo, "-o", target) == 2
    assert "out.webp: would be a .jahp file, not a webp image; end its name in .jahp" in capsys.readouterr().err
    assert not target.exists()


def test_a_size_may_have_its_unit():
    for text, size in {"1234": 1234, "50k": 50_000, "50kB": 50_000, "1.5M": 1_500_000, "2MB": 2_000_000}.items():
        assert num_bytes(text) == size
    for text in ("", "b", "k", "nan", "0", "3x", "5 GB"):
        with pytest.raises(argparse.ArgumentTypeError):
            num_bytes(text)


def test_every_option_that_takes_several_values_may_be_repeated():
    """Otherwise, the last use would silently replace the earlier ones."""
    (table,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    parsers = list(table.choices.values())
    for parser in parsers:
        parsers += [p for a in parser._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
        for action in parser._actions:
            if action.option_strings and action.nargs == "+":
                assert isinstance(action, argparse._ExtendAction), (parser.prog, action.option_strings)


MISTAKES = {
    "unknown key": (["train", "model.depth=3"], "model.depth"),
    "wrong type": (["train", "data.batch_size=many"], "data.batch_size"),
    "missing config": (["train", "nowhere.yaml"], "nowhere.yaml"),
    "no shards": (["train", "data.train=[nowhere/]"], "nowhere"),
    "missing model": (["info", "nowhere"], "nowhere"),
    "missing file": (["info", "nowhere.jahp"], "nowhere.jahp: no such file; check the path"),
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


def test_two_inputs_with_the_same_name_are_refused_before_either_is_lost(model_file, photo, tmp_path, capsys):
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
    assert "the weight of D" in out


def test_the_version_is_printed(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"jahp {version('jahp_pl')}"


SETTINGS = "CONFIG.yaml key=value`? Configs and settings have no dashes"
QUIET = "jahp: -q means --quiet; for a quality of 80, give --quality 80; see `jahp compress --help`"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["compres", "a.png"], "did you mean compress?"),
        (["compress", "a.png", "--qualty", "5"], "did you mean --quality?"),
        (["decompress", "a.jahp", "--fource"], "did you mean --force?"),
        (["compress", "a.png", "--metric", "pnsr"], "did you mean psnr?"),
        (["bench", "codng"], "did you mean coding?"),
        (["compress", "a.png", "-q", "80"], QUIET),
        (["compress", "-q", "80", "a.png"], QUIET),
        (["train", "--config", "x.yaml"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "-c", "x.yaml", "name=a"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "x.yaml", "--lr", "1"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "--loss.lmbda=0.01"], f"did you mean `jahp train {SETTINGS}"),
        (["train", "--quit", "x.yaml"], "did you mean --quiet?"),
        (["sweep", "x.yaml", "--config", "y.yaml"], f"did you mean `jahp sweep {SETTINGS}"),
    ],
)
def test_a_typo_is_answered_with_a_suggestion(arguments, meant, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.strip().endswith(meant)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "jahp: the following arguments are required: COMMAND; see `jahp --help`"),
        (["shards", "a"], "jahp: the following arguments are required: -o/--output; see `jahp shards --help`"),
        (
            ["compress", "a.png", "--size", "x"],
            "jahp: --size: x: must be a size in bytes, e.g. 40000, 50k, 50kB or 1.5M",
        ),
        (["compress", "a.png", "--memory", "9" * 5000], f"jahp: --memory: {'9' * 40}: must be a whole number of at"),
    ],
)
def test_unusable_arguments_are_reported_in_one_line(arguments, expected, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(expected)
    assert error.count("\n") == 1


def test_a_module_that_cannot_be_imported_is_named_by_its_option(capsys):
    assert run("info", "--import", "nowhere.py") == 2
    assert capsys.readouterr().err.startswith("jahp: --import nowhere.py: cannot be imported")


def test_a_module_that_exits_is_named_by_its_option(tmp_path, capsys):
    (tmp_path / "script.py").write_text("import sys; sys.exit(3)\n")
    assert run("info", "joint-psnr", "--import", tmp_path / "script.py") == 2
    assert "script.py: cannot be imported (SystemExit: 3)" in capsys.readouterr().err


def test_a_file_whose_name_begins_with_a_dash_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-photo.png").touch()
    monkeypatch.setattr("sys.argv", ["jahp", "compress", "-photo.png"])
    with pytest.raises(SystemExit):
        main()
    assert "if -photo.png is meant as a file, write ./-photo.png" in capsys.readouterr().err


def test_a_deleted_working_folder_is_reported_in_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    code = "import os; os.rmdir(os.getcwd()); from jahp_pl.cli.main import main; main(['compress', '/nowhere.png'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "gone",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "jahp: the working folder was deleted; change to another one with cd\n"


def test_quiet_prints_errors_only(model_file, photo, capsys):
    assert run("compress", photo, "--model", model_file, "-q") == 0
    assert run("decompress", photo.with_suffix(".jahp"), "--model", model_file, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run("compress", photo, "--model", model_file, "-q") == 2
    assert "exists" in capsys.readouterr().err
    assert run("info", photo.with_suffix(".jahp")) == 0
    assert "217 x 181" in capsys.readouterr().out


def test_verbose_shows_where_an_error_happened(capsys):
    assert run("info", "nowhere", "-v") == 2
    output = capsys.readouterr().err
    assert "Traceback" in output
    assert output.strip().splitlines()[-1].startswith("jahp: ")


def test_one_spelling_holds_for_all_commands_and_the_former_ones_still_work(tmp_path, monkeypatch, capsys):
    photos = str(ROOT / "data" / "photos" / "val" / "dogs.jpg")
    monkeypatch.chdir(tmp_path)
    for options in (["-o", "s"], ["--output", "s", "-f"], ["--out", "s", "--force"], ["--out", "s", "--overwrite"]):
        assert run("shards", photos, *options) == 0
    assert run("shards", photos, "-o", "s") == 2
    parser = _parser()
    for arguments in (
        ["compress", "a", "-f", "-o", "x"],
        ["decompress", "a", "-f", "-o", "x"],
        ["evaluate", "--model", "m", "--images", "i", "-o", "x"],
        ["classical", "--codec", "jpeg", "--images", "i", "-f", "-o", "x"],
        ["report", "r", "-o", "x"],
        ["export", "m", "-f", "-o", "x"],
        ["export-graphs", "m", "-f", "-o", "x"],
        ["import-compressai", "c", "-f", "-o", "x"],
        ["bench", "coding", "--model", "m", "--images", "i", "-o", "x"],
        ["bench", "train", "-o", "x"],
        ["bench", "data", "--images", "i", "-o", "x"],
    ):
        assert parser.parse_args(arguments).output == Path("x")
        former = ["--out" if word == "-o" else word for word in arguments]
        assert parser.parse_args(former).output == Path("x")


def test_an_output_given_as_a_second_input_is_explained(photo, capsys):
    assert run("compress", photo, photo.with_name("out.jahp")) == 2
    assert "if it is meant as the output, write -o" in capsys.readouterr().err


def test_auto_finds_a_usable_device(model_file, photo):
    assert run("compress", photo, "--model", model_file, "--device", "auto") == 0


def test_info_reads_standard_input(model_file, photo, monkeypatch, capsys):
    run("compress", photo, "--model", model_file)
    data = photo.with_suffix(".jahp").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("info", "-") == 0
    assert "217 x 181 pixels" in capsys.readouterr().out


def test_info_shows_lambda_steps_and_figures_of_a_bundled_model_and_recognizes_its_weights(tmp_path, capsys):
    name = pretrained.bundled()[-1].name
    copy = tmp_path / "elsewhere"
    shutil.copytree(pretrained.FOLDER / name, copy)
    assert run("info", copy) == 0
    rows = {line[:15].strip(): line[16:] for line in capsys.readouterr().out.splitlines()}
    config = json.loads((copy / "config.json").read_text())
    assert rows["bundled as"] == name
    assert rows["lambda"].startswith(str(config["facts"]["loss"]["lmbda"]))
    start = config["facts"]["optim"]["start_from"]
    assert rows["last run"].startswith(f"{config['facts']['step']} steps in ")
    assert rows["last run"].endswith(f", from the weights of {start}")
    assert f"learning_rate={config['facts']['optim']['learning_rate']} " in rows["optim"]
    for point in config["results"]["points"]:
        figures = f"{point['bpp']:.4f} bits per pixel, {point['psnr']:.2f} dB"
        assert rows[f"quality {point['quality']:g}"].startswith(figures)


def test_a_shell_completes_commands_and_options(tmp_path):
    pytest.importorskip("argcomplete")
    for line, expected in (("jahp compr", "compress"), ("jahp compress --ver", "--verify")):
        answer = tmp_path / "answer"
        environment = {
            **os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n",
        }  # fmt: skip
        subprocess.run([sys.executable, "-m", "jahp_pl"], env=environment, check=False, timeout=60)
        assert expected in [word.strip() for word in answer.read_text().splitlines()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "1000"}, "None")],
    ids=["by default", "by its policy", "by a count"],
)
def test_threads_wait_passively_before_torch_is_there_unless_the_user_decides(given, expected):
    script = """
import os, sys
from jahp_pl.cli import info, main
info.info = lambda arguments: print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
main.main(["info"])
"""
    ours = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**ours, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected, "False"]


def test_no_garbage_is_collected_while_modules_are_imported_or_at_exit():
    script = """
import gc
collections = []
gc.callbacks.append(lambda phase, _: collections.append(phase))
from jahp_pl.cli import decompress, main
from jahp_pl.cli.codecs import open_any_codec
def run(arguments):
    before = len(collections)
    open_any_codec(arguments)
    print(len(collections) - before, gc.isenabled(), len(gc.get_objects()) < gc.get_freeze_count() / 10)
decompress.decompress = run
main.main(["decompress", "photo.jahp"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "True"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--threads", "99999999"], "--threads: 99999999: must be at most 1024"),
        (["--device", "meta"], "--device meta: cannot be used"),
        (["--device", ""], "--device : cannot be used"),
    ],
)
def test_impossible_threads_and_devices_are_refused(
    option: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert run("compress", tmp_path / "a.png", *option) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_an_import_ends_the_process_at_once(name: str, tmp_path: Path) -> None:
    """Libraries that are imported may swallow exceptions, as this module does, and stay broken."""
    kill = f"os.kill(os.getpid(), signal.{name})"
    code = f"import os, signal\ntry:\n    {kill}\nexcept BaseException:\n    print('swallowed')"
    (tmp_path / "swallowing.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "jahp_pl", "info", "--import", str(tmp_path / "swallowing.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # As from a terminal: a job in the background ignores SIGINT.
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),
    )
    assert done.returncode == 128 + getattr(signal, name)
    assert done.stdout == ""
    assert done.stderr == ("jahp: interrupted\n" if name == "SIGINT" else "")


def test_a_locale_without_umlauts_reads_files_and_refuses_names_that_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_bytes((ROOT / "sweeps" / "lambda.yaml").read_bytes() + "# für später\n".encode())
    (tmp_path / "named.yaml").write_text("name: später\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}

    def run_there(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jahp_pl", *words]
        environment = {**os.environ, **ascii_only}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    listed = run_there("sweep", str(tmp_path / "sweep.yaml"), "--list", "data.train=[x]", "data.val=[y]")
    assert (listed.returncode, listed.stderr) == (0, "")
    refused = run_there("train", str(tmp_path / "named.yaml"), f"output_dir={tmp_path}", "trainer.accelerator=cpu")
    assert refused.returncode == 2
    assert refused.stderr.endswith("the encoding of this locale lacks characters of it; set LC_ALL=C.UTF-8\n")
    assert refused.stderr.count("\n") == 1
