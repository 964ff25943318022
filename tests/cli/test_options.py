"""Arguments that cannot be meant as given are refused with a hint at what was meant."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from jahp_pl.cli.command_line import _parser
from jahp_pl.cli.options import num_bytes
from jahp_pl.model_io import pretrained
from tests.support.commands import run

ADDRESS = "https://host.invalid/a"


@pytest.mark.parametrize(
    "words",
    [
        ["compress", ADDRESS],
        ["compress", "photo.png", "-o", "s3://bucket/photo.jahp"],
        ["decompress", "file:///tmp/photo.jahp"],
        ["shards", ADDRESS, "-o", "out"],
        ["evaluate", "--model", "joint-psnr", "--images", ADDRESS],
        ["evaluate", "--model", "joint-psnr", "--images", ".", "--picture", ADDRESS],
        ["report", ADDRESS],
        ["sweep", ADDRESS],
        ["bench", "runtimes", "--image", ADDRESS],
        ["export", "joint-psnr", "-o", "out", "--results", ADDRESS],
        ["import-compressai", ADDRESS, "-o", "out"],
    ],
    ids=lambda words: "-".join(words[:1]),
)
def test_an_address_in_place_of_a_path_is_named_as_given(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    address = next(word for word in words if "://" in word)
    assert f"{address}: is an address; give the path of a file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["info", ADDRESS], ["export", ADDRESS, "-o", "out"]], ids=lambda words: words[0])
def test_an_address_of_a_model_is_one_on_the_hub(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert f"{ADDRESS}: addresses of models have the form hf://USER/NAME" in capsys.readouterr().err


def test_a_file_of_an_export_or_a_run_is_answered_with_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "ex"
    shutil.copytree(pretrained.BUNDLED_FOLDER / "joint-psnr", export)
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "best.ckpt").touch()
    for name in ("config.yaml", "metrics.csv"):
        (tmp_path / "run" / name).write_text("name: x\n")
    parts = [export / name for name in pretrained.EXPORT_FILES] + [
        tmp_path / "run" / n for n in ("config.yaml", "metrics.csv")
    ]
    for path in parts:
        for words in (["info", path], ["export", path, "-o", tmp_path / "out"]):
            assert run(*words) == 2
            assert f"did you mean its folder, {path.parent}?" in capsys.readouterr().err
    assert run("info", export) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress", "x.png", "--effort", "1.5"], "--effort: '1.5': must be a whole number; see"),
        (["compress", "x.png", "--quality", "50%"], "--quality: '50%': must be a number; see"),
        (["shards", "photos", "-o", "out", "--part", f"1/{'9' * 5000}"], "...: must be I/N with I from 1 to N"),
        (
            ["evaluate", "--model", "joint-psnr", "--images", ".", "-o", "e.json", "--curve", " "],
            "--curve ' ': must be",
        ),
        (
            ["evaluate", "--model", "joint-psnr", "--images", ".", "-o", "e.json", "--curve", "a\nb"],
            "--curve 'a\\nb': m",
        ),
    ],
    ids=lambda words: str(words)[-12:],
)
def test_a_value_of_the_wrong_kind_is_refused_in_plain_words(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err


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
