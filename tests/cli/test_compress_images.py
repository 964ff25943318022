"""Which images `jahp compress` codes, what it loses of them, and what it refuses."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from jahp_pl.codec.bitstream import MAX_ICC_BYTES, unpack, with_icc
from jahp_pl.model_io.load import load_codec
from tests.support.codec_models import kodak_crop
from tests.support.commands import files, run
from tests.support.profiles import DISPLAY_P3


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


def test_what_pillow_finds_odd_in_the_metadata_is_not_printed(model, tmp_path):
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 50)
    exif += b"".join(struct.pack("<HHII", 40_000 + tag, 2, 99, 2**31) for tag in range(50))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "odd.jpg", exif=exif)
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        assert run("compress", tmp_path / "odd.jpg", "--model", model) == 0
    assert [str(warning.message) for warning in printed] == []


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


def test_pictures_of_kinds_that_are_not_read_are_named(model, photos, capsys):
    for name in ("a.JXL", "sub/b.jxl", "c.cr2", "notes.txt"):
        (photos / name).write_bytes(b"x")
    assert run("compress", photos, "--model", model) == 0
    assert "left out, because these formats are not supported: 1 .cr2, 2 .jxl; convert them" in capsys.readouterr().err
