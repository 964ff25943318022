"""All errors of the package have one base class; memory that cannot be allocated is one of them."""

from __future__ import annotations

import errno
import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import jahp_pl
from jahp_pl.cli.job_plan import Job
from jahp_pl.cli.job_queue import run_all
from jahp_pl.errors import JahpError, MemoryShortageError, describe_error, memory_errors
from jahp_pl.settings import load_config
from tests.support.codec_models import JOINT, codec_of
from tests.support.commands import run

TOO_LARGE = 2**50
NOT_FOR_CALLERS = {"Stopped", "_EndOfCommandsError"}
"""Exceptions that end a training run or a benchmark on purpose."""


def own_exceptions() -> list[type]:
    modules = [info.name for info in pkgutil.walk_packages(jahp_pl.__path__, "jahp_pl.") if "__main__" not in info.name]
    found = {
        thing
        for name in modules
        for _, thing in inspect.getmembers(import_module(name), inspect.isclass)
        if issubclass(thing, BaseException) and thing.__module__.startswith("jahp_pl")
    }
    return sorted(found, key=lambda error: error.__name__)


def test_every_error_of_the_package_has_one_base_and_a_fitting_builtin_type():
    errors = [error for error in own_exceptions() if not issubclass(error, Warning)]
    errors = [error for error in errors if error.__name__ not in NOT_FOR_CALLERS]
    assert {"BitstreamError", "ConfigError", "ExportError", "ImageError", "WriteError"} <= {e.__name__ for e in errors}
    for error in errors:
        assert issubclass(error, jahp_pl.JahpError), error
    built_in = (ValueError, OSError, RuntimeError, LookupError, MemoryError)
    others = {error.__name__ for error in errors if not issubclass(error, built_in)} - {"JahpError"}
    assert others == {"ArchiveError"}  # it is caught where tar files are read


def test_a_caller_can_catch_all_by_the_base():
    with pytest.raises(jahp_pl.JahpError, match=r"not a \.jahp file"):
        codec_of(JOINT).decompress(b"something else")
    with pytest.raises(jahp_pl.JahpError, match="nowhere"):
        jahp_pl.load_codec("nowhere")


@pytest.mark.parametrize(
    "allocate",
    [lambda: bytearray(TOO_LARGE), lambda: np.ones(TOO_LARGE), lambda: torch.ones(TOO_LARGE)],
    ids=["python", "numpy", "torch"],
)
def test_a_shortage_of_memory_becomes_one_error_of_one_line(allocate: Callable[[], object]) -> None:
    with (
        pytest.raises(MemoryShortageError, match=r"^photo.png: not enough memory") as caught,
        memory_errors("photo.png"),
    ):
        allocate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [JahpError("not enough memory"), RuntimeError("sizes do not match"), KeyError("x")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("make_path", [lambda: "x" * 300 + ".png", lambda: "a-loop.png"], ids=["too long", "loop"])
def test_an_error_of_the_system_about_an_input_is_a_sentence(
    make_path: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Root may read every file, so too long a name and a loop of links represent all errors of the system."""
    monkeypatch.chdir(tmp_path)
    Path("a-loop.png").symlink_to("a-loop.png")
    Image.new("RGB", (8, 8)).save("a.png")
    Path("a.jahp").write_bytes(codec_of(JOINT).compress(np.zeros((8, 8, 3), np.uint8)))
    bad = make_path()
    for command in (
        ("compress", bad),
        ("compress", "a.png", "-o", bad),
        ("compress", "a.png", "-o", "b.jahp", "--model", bad),
        ("decompress", bad),
        ("decompress", "a.jahp", "-o", bad),
        ("info", bad),
        ("evaluate", "--model", bad, "--images", "a.png"),
        ("evaluate", "--model", "joint-psnr", "--images", bad),
        ("evaluate", "--model", "joint-psnr", "--images", "nowhere.png", "--picture", bad),
        ("classical", "--codec", "jpeg", "--images", bad),
        ("report", bad),
        ("report", bad, "-o", "r"),
        ("shards", bad, "-o", "s"),
        ("shards", "a.png", "--min-side", "1", "-o", bad),
        ("train", bad),
        ("train", f"data.train=[{bad}]"),
        ("sweep", bad),
        ("export", bad, "-o", "e"),
        ("export", "joint-psnr", "-o", bad),
        ("import-compressai", bad, "-o", "e"),
    ):
        assert run(*command) == 2, command
        error = capfd.readouterr().err
        assert error.startswith("jahp: "), command
        assert error.count("\n") == 1, command
        assert "Errno" not in error, command


def test_a_file_of_a_folder_that_cannot_be_read_is_named_with_the_reason() -> None:
    loop = OSError(errno.ELOOP, "Too many levels of symbolic links", "/a/b")
    job = Job(Path("a"), Path("b"), is_resumable=True)

    def work(_: Job) -> bool:
        raise loop

    reason = "/a/b: cannot be used (Too many levels of symbolic links); check the path"
    assert describe_error(loop) == reason
    assert run_all([job], work, (OSError,)).failures == [(Path("a"), reason)]
    assert describe_error(OSError(errno.EACCES, "Permission denied"), "x") == (
        "x: cannot be used (Permission denied); allow access to it"
    )
    assert describe_error(OSError("not a regular file")) == "not a regular file"


def test_an_input_that_fails_while_it_is_read_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("has no file that can be opened but not read")
    assert run("compress", "/proc/self/mem", "-o", "never.jahp") == 2
    assert capfd.readouterr().err.startswith("jahp: /proc/self/mem: cannot be used (Input/output error)")


def test_a_message_is_one_line_whatever_names_are_in_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text('"a\\nb": 1\n')
    with pytest.raises(JahpError) as caught:
        load_config(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value)
    for error in own_exceptions():
        if issubclass(error, JahpError) and error.__init__ is JahpError.__init__:
            assert str(error("a\nb")) == "a b", error
