"""Full disks, closed pipes, lost memory and interrupts end a command in one line and leave no partial output."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.cli import streams
from jahp_pl.cli.job_plan import STREAM
from jahp_pl.codec.bitstream import unpack
from tests.support.codec_models import kodak_crop
from tests.support.commands import files, run
from tests.support.permissions import forbid


def test_a_full_disk_leaves_no_partial_output_and_keeps_the_old_one(model, photos, monkeypatch, capsys):
    target = photos / "one.jahp"
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("compress", photos / "one.png", "--model", model, "--force") == 2
    assert "No space left" in capsys.readouterr().err
    assert target.read_bytes() == b"old"
    assert files(photos) == ["one.jahp", "one.png", "sub/two.png"]


def test_a_folder_that_cannot_be_listed_is_a_failure_and_the_others_are_done(model, photos, monkeypatch, capsys):
    forbid(monkeypatch, photos / "sub")
    assert run("compress", photos, "--model", model) == 2
    error = capsys.readouterr().err
    assert f"  {photos / 'sub'}: cannot be used (Permission denied); allow access to it\n" in error
    assert "jahp: compress: 1 of 2 failed, see above; the others are done\n" in error
    assert (photos / "one.jahp").exists()


def test_an_interrupt_ends_all_and_leaves_no_partial_output(model, photos, monkeypatch, capfd):
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    assert run("compress", photos, "--model", model) == 130
    assert "interrupted" in capfd.readouterr().err
    assert files(photos) == ["one.png", "sub/two.png"]


def piped(*arguments, stdout, is_buffered=True):
    """Run a command with a file descriptor as its output, and return its status and messages."""
    command = [sys.executable, *([] if is_buffered else ["-u"]), "-m", "jahp_pl", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, timeout=120, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("is_buffered", [True, False])
def test_a_closed_pipe_ends_the_command_silently(is_buffered, model, photos):
    reading, writing = os.pipe()
    os.close(reading)
    assert piped("compress", photos, "--model", model, stdout=writing, is_buffered=is_buffered) == (141, "")
    os.close(writing)
    assert not [name for name in files(photos) if name.endswith(".part")]
    assert ("sub/two.jahp" in files(photos)) == is_buffered


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
@pytest.mark.parametrize("is_buffered", [True, False])
@pytest.mark.parametrize("words", [["compress", "one.png", "-o", "-"], ["compress", "."], ["--version"]])
def test_a_full_standard_output_is_named(words, is_buffered, model, photos, monkeypatch):
    monkeypatch.chdir(photos)
    with Path("/dev/full").open("wb") as full:
        words = [*words, *(["--model", model] if words[0] == "compress" else [])]
        status, error = piped(*words, stdout=full, is_buffered=is_buffered)
    assert status == 2
    assert error == "jahp: standard output: cannot be written (No space left on device); redirect it elsewhere\n"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux, which reports how much memory is used")
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_memory_that_runs_out_is_reported_in_one_line_and_the_other_files_are_done(runtime, photos):
    # Pixels of 7 bytes: 4 in Pillow and 3 in the array. The limit leaves the small images far more than they need.
    Image.new("RGB", (9000, 7000), "teal").save(photos / "large.png", compress_level=1)
    load = (
        "jahp_pl.runtime.load import load_runtime" if runtime == "onnx" else "jahp_pl.model_io.load import load_codec"
    )
    code = f"""
import resource
from pathlib import Path
from {load} as load
from jahp_pl.cli.main import main
load()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
main(["compress", ".", "-o", "out", "--threads", "1", "--runtime", "{runtime}", *{["--effort", "0"]}])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=photos, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1] == "jahp: compress: 1 of 3 failed, see above; the others are done"
    assert "large.png: not enough memory" in lines[-2]
    assert files(photos / "out") == ["one.jahp", "sub/two.jahp"]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="Linux and macOS have this device")
@pytest.mark.parametrize("words", [["info", "-"], ["compress", "-", "-o", "-"], ["decompress", "-", "-o", "-"]])
def test_a_stream_without_an_end_is_refused_before_memory_is_full(words, model, monkeypatch, capsys):
    monkeypatch.setattr(streams, "MAX_INPUT_BYTES", 2**22)
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        assert run(*words, *([] if words[0] == "info" else ["--model", model])) == 2
    assert "jahp: standard input: has more than the 4194304 bytes allowed" in capsys.readouterr().err


def test_a_standard_input_that_does_not_block_is_read_to_its_end(monkeypatch):
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def write_slowly() -> None:
        for part in (b"first", b"second"):
            time.sleep(0.2)
            os.write(writing, part)
        os.close(writing)

    with os.fdopen(reading) as file, ThreadPoolExecutor(1) as writer:
        writer.submit(write_slowly)
        monkeypatch.setattr(sys, "stdin", file)
        assert streams.read_source(STREAM) == b"firstsecond"


@pytest.mark.parametrize("command", ["info", "compress", "decompress"])
def test_a_file_larger_than_any_image_is_not_read(command, model, tmp_path, capsys):
    path = tmp_path / ("x.png" if command == "compress" else "x.jahp")
    path.touch()
    os.truncate(path, streams.MAX_INPUT_BYTES + 1)  # a sparse file, which takes no space
    assert run(command, path, *([] if command == "info" else ["--model", model])) == 2
    assert f"{path}: has more than the {streams.MAX_INPUT_BYTES} bytes allowed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_a_limit_on_the_size_of_files_is_reported_and_leaves_nothing(model, photos):
    """The limit stands in for a full disk, which only root could set up."""
    command = [sys.executable, "-m", "jahp_pl", "compress", photos, "--model", model, "--threads", "1"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120, check=False)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert "one.jahp: cannot be written (File too large); the previous content is kept. Free some space" in lines[0]
    assert lines[-1] == "jahp: compress: 2 of 2 failed, see above"
    assert files(photos) == ["one.png", "sub/two.png"]


@pytest.fixture
def heeded_interrupts():
    """Restore Ctrl+C, which a shell makes background processes and their children ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupts")
def test_ctrl_c_in_a_folder_keeps_what_is_done_and_the_next_run_does_the_rest(model, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(60):
        Image.fromarray(kodak_crop()[number : number + 190]).save(folder / f"{number:02}.png")
    command = [sys.executable, "-m", "jahp_pl", "compress", folder, "-o", out, "--model", model, "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.jahp")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1] == "jahp: interrupted"
    assert "Traceback" not in error
    done = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert 1 <= len(done) < 60
    for name in done:
        assert unpack((out / name).read_bytes())[0].width == 384
    assert run("compress", folder, "-o", out, "--model", model) == 0
    assert f"\n{len(done)} of 60 w" in capsys.readouterr().out  # "was done already" or "were"
    assert len(files(out)) == 60
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done
