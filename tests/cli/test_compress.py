"""Tests of `jahp compress` and `jahp decompress` with files, folders and streams, real models and user errors."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.codec.bitstream import MAX_ICC_BYTES, unpack, with_icc
from jahp_pl.codec.codec import Codec
from jahp_pl.model_io.load import load_codec
from tests.support.codec_models import kodak_crop
from tests.support.commands import run
from tests.support.profiles import DISPLAY_P3


@pytest.fixture
def photos(tmp_path):
    """The images in/one.png and in/sub/two.png, parts of a photograph with different sizes."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(kodak_crop()[:70, :101]).save(folder / "one.png")
    Image.fromarray(kodak_crop("kodim15")[:64, :50]).save(folder / "sub" / "two.png")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_round_trips_with_its_tree_of_names(model, photos, tmp_path):
    coded, restored = tmp_path / "coded", tmp_path / "restored"
    assert run("compress", photos, "-o", coded, "--model", model) == 0
    assert files(coded) == ["one.jahp", "sub/two.jahp"]
    assert run("decompress", coded, "-o", restored, "--model", model) == 0
    assert files(restored) == files(photos)
    codec = load_codec(model)
    for name in files(photos):
        expected = codec.decompress((coded / name).with_suffix(".jahp").read_bytes())
        with Image.open(restored / name) as image:
            assert np.array_equal(np.asarray(image), expected.movedim(0, -1).numpy())


def test_finished_outputs_are_skipped_unless_forced(model, photos, capsys):
    command = ("compress", photos, "--model", model)
    assert run(*command) == 0
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*.jahp")}
    (photos / "one.jahp").unlink()
    capsys.readouterr()
    assert run(*command) == 0
    assert "1 of 2 was done already" in capsys.readouterr().out
    second = photos / "sub" / "two.jahp"
    assert second.stat().st_mtime_ns == before[second]
    assert run(*command, "--force") == 0
    assert second.stat().st_mtime_ns > before[second]


def test_an_output_made_with_other_options_does_not_count_as_done(model, tmp_path, capsys):
    folder = tmp_path / "wide"
    folder.mkdir()
    Image.fromarray(kodak_crop()[:40, :50]).save(folder / "wide.png", icc_profile=DISPLAY_P3)
    Image.fromarray(kodak_crop()[:40, :50]).save(folder / "plain.png")
    for first, second in (((), ("--srgb",)), (("--srgb",), ())):
        assert run("compress", folder, "--model", model, *first, "--force") == 0
        assert run("compress", folder, "--model", model, *first) == 0
        assert "2 of 2 were done already" in capsys.readouterr().out
        assert run("compress", folder, "--model", model, *second) == 2
        shown = capsys.readouterr()
        message = f"{folder / 'wide.png'}: {folder / 'wide.jahp'}: exists and was not made by this model with these"
        assert message in shown.err
        assert "1 of 2 was done already" in shown.out


def test_an_output_of_another_model_or_older_than_its_input_does_not_count_as_done(model, photos, capsys):
    assert run("compress", photos, "--model", model) == 0
    one, two = photos / "one.jahp", photos / "sub" / "two.jahp"
    data = bytearray(one.read_bytes())
    data[5] ^= 1  # in the fingerprint; the checksum is wrong then, too
    one.write_bytes(data)
    os.utime(two, (1, 1))
    assert run("compress", photos, "--model", model) == 2
    error = capsys.readouterr().err
    assert "was not made by this model" in error
    assert "older" in error
    assert one.read_bytes() == data


def test_decompressing_beside_the_originals_does_not_touch_them(model, photos):
    originals = {path: path.read_bytes() for path in photos.rglob("*.png")}
    assert run("compress", photos, "--model", model) == 0
    assert run("decompress", photos, "--model", model) == 0
    assert all(path.read_bytes() == data for path, data in originals.items())
    assert {path.with_suffix(".decoded.png") for path in originals} == set(photos.rglob("*.decoded.png"))


def test_one_bad_image_is_named_at_the_end_and_the_others_are_done(model, photos, tmp_path, capsys):
    (photos / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert run("compress", photos, "-o", out, "--model", model) == 2
    assert files(out) == ["one.jahp", "sub/two.jahp"]
    lines = capsys.readouterr().err.strip().splitlines()
    assert "bad.png: not an image" in lines[-2]
    assert lines[-1] == "jahp: compress: 1 of 3 failed, see above; the others are done"


def test_a_damaged_file_among_others_is_named_and_the_others_are_done(model, photos, tmp_path, capsys):
    coded, out = tmp_path / "coded", tmp_path / "out"
    run("compress", photos, "-o", coded, "--model", model)
    (coded / "one.jahp").write_bytes((coded / "one.jahp").read_bytes()[:-4])
    assert run("decompress", coded, "-o", out, "--model", model) == 2
    assert "one.jahp: the file is cut short" in capsys.readouterr().err
    assert files(out) == ["sub/two.png"]


def test_standard_input_and_output_carry_the_same_bytes_as_files(model, photos):
    one = photos / "one.png"
    run("compress", one, "--model", model)
    command = [sys.executable, "-m", "jahp_pl"]
    options = ["--model", str(model), "--threads", "1"]
    coded = subprocess.run(
        [*command, "compress", "-", *options], input=one.read_bytes(), capture_output=True, check=True
    )
    assert coded.stdout == one.with_suffix(".jahp").read_bytes()
    back = subprocess.run([*command, "decompress", "-", *options], input=coded.stdout, capture_output=True, check=True)
    run("decompress", one.with_suffix(".jahp"), "-o", photos / "back.png", "--model", model)
    assert back.stdout == (photos / "back.png").read_bytes()


def test_transparency_is_refused_without_flatten(model, tmp_path, capsys):
    pixels = np.dstack([kodak_crop()[:40, :40], np.full((40, 40), 255, np.uint8)])
    opaque, clear, out = tmp_path / "opaque.png", tmp_path / "clear.png", tmp_path / "clear.jahp"
    Image.fromarray(pixels).save(opaque)
    pixels[3, 4, 3] = 254
    Image.fromarray(pixels).save(clear)
    assert run("compress", opaque, "--model", model) == 0
    assert run("compress", clear, "--model", model) == 2
    assert "transparent" in capsys.readouterr().err
    assert not out.exists()
    assert run("compress", clear, "--model", model, "--flatten") == 0
    assert "lost: transparency" in capsys.readouterr().out
    assert out.exists()


def test_losses_of_an_image_are_reported(model, tmp_path, capsys):
    gray = np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40
    Image.fromarray(gray).save(tmp_path / "deep.png")
    Image.new("CMYK", (40, 30), (10, 20, 30, 0)).save(tmp_path / "print.jpg")
    Image.new("L", (40, 30), 99).save(tmp_path / "gray.png")
    assert run("compress", tmp_path, "--model", model) == 0
    lines = {Path(line.split(" -> ")[0]).name: line for line in capsys.readouterr().out.splitlines()}
    assert "lost: bits beyond 8 per sample" in lines["deep.png"]
    assert "lost: CMYK" in lines["print.jpg"]
    assert "lost" not in lines["gray.png"]


def test_a_color_profile_round_trips(model, tmp_path, capsys):
    photo, coded = tmp_path / "wide.png", tmp_path / "wide.jahp"
    pixels = kodak_crop()[:40, :50]
    Image.fromarray(pixels).save(photo, icc_profile=DISPLAY_P3)
    assert run("compress", photo, "--model", model, "--verify") == 0
    output = capsys.readouterr().out
    assert "colors: wide" in output
    assert "lost" not in output
    data, plain = coded.read_bytes(), load_codec(model).compress(pixels)
    assert data == with_icc(plain, DISPLAY_P3), "the numbers are coded as they are"
    assert run("info", coded) == 0
    output = capsys.readouterr().out
    assert f"wide, an ICC profile of {len(DISPLAY_P3)} bytes that takes {len(data) - len(plain)} in the file" in output
    for suffix in ("png", "jpg", "webp", "tif"):
        assert run("decompress", coded, "-o", tmp_path / f"back.{suffix}", "--model", model) == 0
        with Image.open(tmp_path / f"back.{suffix}") as image:
            assert image.info["icc_profile"] == DISPLAY_P3
            if suffix in ("png", "tif"):
                assert np.array_equal(np.asarray(image), load_codec(model).decompress(data).movedim(0, -1).numpy())


def test_colors_are_converted_to_srgb_on_request_or_if_their_profile_is_too_large(model, tmp_path, capsys):
    Image.fromarray(kodak_crop()[:40, :50]).save(tmp_path / "wide.png", icc_profile=DISPLAY_P3)
    assert run("compress", tmp_path / "wide.png", "--model", model, "--srgb") == 0
    assert "lost: a color profile, converted to sRGB" in capsys.readouterr().out
    first = (tmp_path / "wide.jahp").read_bytes()
    assert unpack(first)[0].icc == b""
    assert run("info", tmp_path / "wide.jahp") == 0
    assert "colors          sRGB\n" in capsys.readouterr().out
    vast = DISPLAY_P3 + bytes(MAX_ICC_BYTES)
    Image.fromarray(kodak_crop()[:40, :50]).save(tmp_path / "vast.tif", icc_profile=vast)
    assert run("compress", tmp_path / "vast.tif", "--model", model) == 0
    assert "lost: a color profile, converted to sRGB" in capsys.readouterr().out
    assert (tmp_path / "vast.jahp").read_bytes() == first


def test_verify_accepts_files_that_decode(model, photos, capsys):
    assert run("compress", photos, "--model", model, "--verify") == 0
    assert capsys.readouterr().out.count("verified") == 2


@pytest.mark.parametrize("altered", ["y_hat", "z_hat", "image"])
def test_verify_writes_nothing_if_one_value_decodes_differently(altered, model, photos, monkeypatch, capsys):
    decode = Codec.decode

    def faulty(self, *arguments):
        decoded = decode(self, *arguments)
        value = getattr(decoded, altered).clone()
        value[0, 0, 0] ^= 2
        return decoded._replace(**{altered: value})

    monkeypatch.setattr(Codec, "decode", faulty)
    assert run("compress", photos / "one.png", "--model", model, "--verify") == 2
    assert "decoded differently" in capsys.readouterr().err
    assert files(photos) == ["one.png", "sub/two.png"]


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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory is used")
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_memory_that_runs_out_is_reported_in_one_line_and_the_other_files_are_done(runtime, photos):
    Image.new("RGB", (6000, 4000), "teal").save(photos / "large.png")
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
resource.setrlimit(resource.RLIMIT_AS, (used + 220 * 2**20,) * 2)
main(["compress", ".", "-o", "out", "--threads", "1", "--runtime", "{runtime}", *{["--effort", "0"]}])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=photos, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1] == "jahp: compress: 1 of 3 failed, see above; the others are done"
    assert "large.png: not enough memory" in lines[-2]
    assert files(photos / "out") == ["one.jahp", "sub/two.jahp"]


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


def png(width, height, bits, color, content):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def saved(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_every_kind_of_picture_is_coded_or_refused_for_a_reason(model, tmp_path, capsys):
    photo = Image.fromarray(kodak_crop()[:40, :48])
    see_through = photo.convert("P")
    see_through.info["transparency"] = see_through.getpixel((3, 3))
    rows = b"".join(b"\0" + bytes(range(8)) * 6 for _ in range(4))
    kinds = {
        "animated.gif": (saved(photo, "GIF", save_all=True, append_images=[photo.rotate(90)]), "has 2 frames"),
        "animated.png": (saved(photo, "PNG", save_all=True, append_images=[photo.rotate(90)]), "has 2 frames"),
        "bilevel.png": (saved(photo.convert("1"), "PNG"), None),
        "bomb.png": (png(60_000, 60_000, 8, 2, bytes(1000)), "more than 178,000,000 pixels"),
        "cut.jpg": (saved(photo, "JPEG")[:-300], "damaged or unreadable image"),
        "cut.png": (saved(photo, "PNG")[:-300], "damaged or unreadable image"),
        "deep.png": (png(8, 4, 16, 2, rows), None),
        "deep-alpha.png": (png(6, 4, 16, 6, rows), "--flatten"),
        "empty.png": (b"", "not an image"),
        "fax.tif": (saved(photo.convert("1"), "TIFF", compression="group4"), None),
        "negative.tif": (saved(Image.fromarray(np.full((9, 9), -0.5, np.float32)), "TIFF"), "no known white"),
        "pages.tif": (saved(photo, "TIFF", save_all=True, append_images=[photo]), "has 2 frames"),
        "palette.gif": (saved(photo.convert("P"), "GIF"), None),
        "see-through.png": (saved(see_through, "PNG"), "--flatten"),
        "text.jpg": (b"hello", "not an image"),
        "thin.png": (saved(photo.crop((0, 0, 1, 40)), "PNG"), None),
    }
    folder, out, back = tmp_path / "in", tmp_path / "out", tmp_path / "back"
    folder.mkdir()
    for name, (content, _) in kinds.items():
        stem, suffix = name.split(".")
        (folder / f"{stem}-{suffix}.{suffix}").write_bytes(content)
    assert run("compress", folder, "-o", out, "--model", model) == 2
    lines = capsys.readouterr().err.splitlines()
    refused = {name.replace(".", "-"): reason for name, (_, reason) in kinds.items() if reason is not None}
    assert lines[-1] == f"jahp: compress: {len(refused)} of {len(kinds)} failed, see above; the others are done"
    for name, reason in refused.items():
        (message,) = [line for line in lines if f"{name}." in line]
        assert reason in message
    coded = {name.replace(".", "-") for name in kinds} - set(refused)
    assert files(out) == sorted(f"{name}.jahp" for name in coded)
    assert run("decompress", out, "-o", back, "--model", model) == 0
    assert files(back) == sorted(f"{name}.png" for name in coded)


def test_a_missing_device_is_named(model, photos, capsys):
    for device in ("nonsense", "cuda:77"):
        assert run("compress", photos, "--model", model, "--device", device) == 2
        assert f"--device {device}" in capsys.readouterr().err


def test_the_number_of_threads_is_the_requested_one(model, photos):
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            assert run("compress", photos / "one.png", "--model", model, "--threads", number, "--force") == 0
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert run("compress", photos, "--model", model, "--threads", "0") == 2


def test_an_image_beyond_the_limit_is_decoded_only_on_request(model, photos, capsys):
    run("compress", photos / "one.png", "--model", model)
    command = ("decompress", photos / "one.jahp", "-o", photos / "b.png", "--model", model, "--max-pixels")
    assert run(*command, 70 * 101 - 1) == 2
    assert "70" in capsys.readouterr().err
    assert run(*command, 70 * 101) == 0


def test_an_image_with_a_side_too_long_is_refused_in_one_line(model, tmp_path, capsys):
    Image.new("RGB", (65536, 1)).save(tmp_path / "long.png")
    assert run("compress", tmp_path / "long.png", "--model", model) == 2
    assert "65536 x 1" in capsys.readouterr().err
    assert not (tmp_path / "long.jahp").exists()


def test_a_format_that_cannot_hold_the_picture_is_named(model, tmp_path, capsys):
    Image.new("RGB", (16400, 1)).save(tmp_path / "wide.png")
    assert run("compress", tmp_path / "wide.png", "--model", model) == 0
    assert run("decompress", tmp_path / "wide.jahp", "-o", tmp_path / "x.webp", "--model", model) == 2
    assert "x.webp" in capsys.readouterr().err
    assert not (tmp_path / "x.webp").exists()


def test_a_folder_ends_with_a_summary(model, photos, capsys):
    assert run("compress", photos, "--model", model) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    sizes = [path.stat().st_size for path in photos.rglob("*.jahp")]
    bpp = 8 * sum(sizes) / (70 * 101 + 64 * 50)
    assert last.startswith(f"2 files, {sum(sizes)} bytes, {bpp:.4f} bpp, ")
    assert last.endswith(" s")
    assert run("decompress", photos, "--model", model) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"2 files, {sum(sizes)} bytes, {bpp:.4f} bpp, ")


def test_two_files_with_the_same_name_do_not_stop_the_others(model, photos, capsys):
    with Image.open(photos / "one.png") as image:
        image.save(photos / "one.bmp")
    assert run("compress", photos, "--model", model) == 2
    output = capsys.readouterr()
    assert not (photos / "one.jahp").exists()
    assert (photos / "sub" / "two.jahp").exists()
    assert output.err.count("have the same output") == 2
    assert "2 of 3 failed" in output.err


def test_pictures_of_kinds_that_are_not_read_are_named(model, photos, capsys):
    for name in ("a.JXL", "sub/b.jxl", "c.cr2", "notes.txt"):
        (photos / name).write_bytes(b"x")
    assert run("compress", photos, "--model", model) == 0
    assert "left out, because these formats are not supported: 1 .cr2, 2 .jxl; convert them" in capsys.readouterr().err
