"""Any still image is read as upright 8-bit sRGB, or is refused in one line."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from jahp_pl.images.io import ImageError, decode_rgb, image_size, is_plain_jpeg
from tests.support.colored_files import chunk
from tests.support.image_files import encode, pixels


def test_an_rgb_photograph_keeps_its_values(photo: Image.Image) -> None:
    decoded = decode_rgb(encode(photo, "PNG"))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (64, 96, 3)
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    assert np.array_equal(decoded, pixels(photo))


def test_damaged_metadata_does_not_lose_the_image(photo: Image.Image) -> None:
    data = encode(photo, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", icc_profile=b"not a profile")
    assert decode_rgb(data).shape == (64, 96, 3)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_and_several_pages_are_refused(photo: Image.Image, file_format: str) -> None:
    data = encode(photo, file_format, save_all=True, append_images=[photo.rotate(90), photo.rotate(180)])
    with pytest.raises(ImageError, match=r"^clip\.x: has 3 frames or pages"):
        decode_rgb(data, name="clip.x")


def test_a_camera_preview_behind_the_photograph_is_ignored(photo: Image.Image) -> None:
    data = encode(photo, "MPO", save_all=True, append_images=[photo.resize((24, 16))], quality=100, subsampling=0)
    assert np.abs(decode_rgb(data).astype(int) - pixels(photo)).max() <= 6


def test_an_image_of_over_a_hundred_megapixels_is_read_without_a_warning() -> None:
    data = encode(Image.new("1", (11_000, 10_000)), "PNG")
    assert image_size(data) == (11_000, 10_000)
    assert decode_rgb(data).shape == (10_000, 11_000, 3)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    for width, height in ((14_000, 13_000), (100_000, 100_000)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        with pytest.raises(ImageError, match="178,000,000 pixels"):
            image_size(bomb, name="bomb.png")


def test_every_truncation_of_a_file_gives_an_image_error_or_an_image(photo: Image.Image) -> None:
    for file_format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000"):
        data = encode(photo, file_format)
        for end in range(0, len(data) - 1, max(1, len(data) // 25)):
            try:
                outcome: object = decode_rgb(data[:end], name="cut").shape
            except ImageError as error:
                outcome = str(error)
            assert outcome == (64, 96, 3) or (str(outcome).startswith("cut: ") and "\n" not in str(outcome))


def test_a_truncated_jpeg_is_refused(photo: Image.Image) -> None:
    data = encode(photo, "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        decode_rgb(data[: len(data) // 2])


@pytest.mark.parametrize("content", [b"", b"hello", bytes(1000)])
def test_a_foreign_or_empty_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for function in (decode_rgb, image_size, is_plain_jpeg):
        with pytest.raises(ImageError, match=r"photo\.jpg: not an image"):
            function(path)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Ghostscript is a shell script")
def test_no_other_program_runs_for_an_image(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript, trace = tmp_path / "bin" / "gs", tmp_path / "trace"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\necho ran > '{trace}'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # where Pillow remembers whether there is one
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo, "EPS"))
    with pytest.raises(ImageError, match=r"photo\.png: not an image, or in a format that is not supported; convert"):
        decode_rgb(path)
    assert not trace.exists()


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        decode_rgb(tmp_path / "gone.png")
    with pytest.raises(ImageError, match=tmp_path.name):
        decode_rgb(tmp_path)


def test_paths_bytes_and_open_files_give_the_same_image(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "a.png"
    photo.save(path)
    with path.open("rb") as file:
        assert np.array_equal(decode_rgb(file), decode_rgb(path))
    assert np.array_equal(decode_rgb(path.read_bytes()), decode_rgb(str(path)))
    assert image_size(path) == (96, 64)


def test_only_pillow_and_numpy_are_needed() -> None:
    code = "import sys, jahp_pl.images.io; print(sorted({'torch', 'webdataset', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
