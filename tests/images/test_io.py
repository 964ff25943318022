"""Any still image becomes upright 8-bit sRGB, or is refused in one line."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import EpsImagePlugin, Image, ImageCms

from jahp_pl.images.io import ImageError, convert_rgb, decode_rgb, image_size, is_plain_jpeg
from tests.support.profiles import DISPLAY_P3

WHITE, RED = (255, 255, 255), (255, 0, 0)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def test_an_rgb_photograph_keeps_its_values(photo: Image.Image) -> None:
    decoded = decode_rgb(encode(photo, "PNG"))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (64, 96, 3)
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    assert np.array_equal(decoded, pixels(photo))


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_in_the_metadata_is_applied(photo: Image.Image, orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = pixels(photo)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright[::-1], 1),
        8: np.rot90(upright, -1),
    }[orientation]
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(file_format, {})
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, **options)
    decoded = decode_rgb(data)
    assert decoded.shape == (64, 96, 3)
    assert np.abs(decoded.astype(int) - upright).max() <= (6 if file_format == "JPEG" else 0)
    assert is_plain_jpeg(data) == (file_format == "JPEG" and orientation == 1)


def test_damaged_metadata_does_not_lose_the_image(photo: Image.Image) -> None:
    data = encode(photo, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", icc_profile=b"not a profile")
    assert decode_rgb(data).shape == (64, 96, 3)


def test_a_wide_gamut_profile_is_converted_to_srgb() -> None:
    """Display P3 has reds outside sRGB; its (234, 51, 35) is the purest red of sRGB."""
    image = Image.new("RGB", (32, 32), (234, 51, 35))
    decoded = decode_rgb(encode(image, "PNG", icc_profile=DISPLAY_P3))
    assert np.abs(decoded[0, 0].astype(int) - RED).max() <= 4
    assert not is_plain_jpeg(encode(image, "JPEG", icc_profile=DISPLAY_P3))
    assert not np.array_equal(decoded, pixels(image))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors_stay_in_their_own_space_on_request(photo: Image.Image, mode: str) -> None:
    data = encode(photo.convert(mode), "PNG", icc_profile=DISPLAY_P3)
    kept = convert_rgb(data, max_icc=len(DISPLAY_P3))
    assert np.array_equal(kept.rgb, pixels(photo.convert(mode)))
    assert (kept.icc, kept.lost) == (DISPLAY_P3, ())
    converted = convert_rgb(data, max_icc=len(DISPLAY_P3) - 1)
    assert np.array_equal(converted.rgb, decode_rgb(data))
    assert not np.array_equal(converted.rgb, kept.rgb)
    assert (converted.icc, converted.lost) == (b"", ("a color profile, converted to sRGB",))


def test_only_an_rgb_profile_other_than_srgb_is_kept(photo: Image.Image) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"not a profile", DISPLAY_P3[:150]):
        kept = convert_rgb(encode(photo, "PNG", icc_profile=profile), max_icc=2**20)
        assert np.array_equal(kept.rgb, pixels(photo))
        unused = () if profile == srgb else ("a color profile that is damaged or not for RGB, ignored",)
        assert (kept.icc, kept.lost) == (b"", unused)
    for mode in ("L", "CMYK"):
        assert convert_rgb(encode(photo.convert(mode), "TIFF", icc_profile=DISPLAY_P3), max_icc=2**20).icc == b""


def test_an_srgb_profile_changes_no_pixel(photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode_rgb(encode(photo, "PNG", icc_profile=profile)), pixels(photo))
    assert is_plain_jpeg(encode(photo, "JPEG", icc_profile=profile))


def test_lab_is_converted_to_srgb() -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = Image.new("RGB", (16, 16), (180, 90, 40))
    lab = ImageCms.applyTransform(image, to_lab)
    assert lab is not None
    assert np.abs(decode_rgb(encode(lab, "TIFF")).astype(int) - pixels(image)).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white_become_three_equal_channels(photo: Image.Image, mode: str) -> None:
    gray = photo.convert(mode)
    decoded = decode_rgb(encode(gray, "PNG"))
    assert np.array_equal(decoded, pixels(gray))
    assert (decoded == decoded[..., :1]).all()


def test_a_gray_profile_is_applied() -> None:
    """The profile is linear gray, in which half the light corresponds to level 188 of sRGB."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061), b"kTRC": b"curv\0\0\0\0\0\0\0\0"}
    tags |= {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(78), b"cprt": b"text\0\0\0\0none\0"}
    table, body = b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I", 132 + len(table) + len(body)) + b"lcms\x02\x10\0\0mntrGRAYXYZ " + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    profile = header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body
    decoded = decode_rgb(encode(Image.new("L", (16, 16), 128), "PNG", icc_profile=profile))
    assert abs(int(decoded[0, 0, 0]) - 188) <= 2
    assert (decoded == decoded[0, 0, 0]).all()


def test_sixteen_bit_gray_keeps_its_white_and_rounds(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535, 32768, 384, 386]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "gray.png")
    assert decode_rgb(tmp_path / "gray.png")[0, :, 0].tolist() == [0, 1, 255, 128, 1, 2]
    Image.fromarray(values).save(tmp_path / "gray.tif")
    assert decode_rgb(tmp_path / "gray.tif")[0, :, 1].tolist() == [0, 1, 255, 128, 1, 2]


def test_sixteen_bit_color_becomes_eight_bit() -> None:
    values = np.array([[[0, 65535, 32896], [65535, 0, 257]]], dtype=">u2")
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + values.tobytes())), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for tag, content in chunks:
        png += struct.pack(">I", len(content)) + tag + content + struct.pack(">I", zlib.crc32(tag + content))
    assert decode_rgb(png).tolist() == [[[0, 255, 128], [255, 0, 1]]]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_samples_are_scaled_by_the_white_that_holds_them(white: float) -> None:
    image = Image.fromarray((np.array([[0.0, 0.5, 1.0]]) * white).astype(np.float32))
    assert decode_rgb(encode(image, "TIFF"))[0, :, 2].tolist() in ([0, 127, 255], [0, 128, 255])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e6])
def test_float_samples_without_a_known_white_are_refused(value: float) -> None:
    image = Image.fromarray(np.array([[0.0, value]], dtype=np.float32))
    with pytest.raises(ImageError, match="no known white"):
        decode_rgb(encode(image, "TIFF"))


def test_transparency_is_composited_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    for file_format, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        assert decode_rgb(encode(image, file_format, **options))[0].tolist() == [[255, 0, 0], [255] * 3, [127] * 3]
    gray = Image.new("LA", (2, 1), (0, 255))
    gray.putpixel((1, 0), (0, 0))
    assert decode_rgb(encode(gray, "PNG"))[0].tolist() == [[0] * 3, [255] * 3]


def test_a_transparent_palette_entry_is_composited_on_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 255, 0, 128, 0])
    image.putpixel((1, 0), 1)
    assert decode_rgb(encode(image, "PNG"))[0].tolist() == [[0, 0, 255], [0, 128, 0]]
    assert decode_rgb(encode(image, "PNG", transparency=0))[0].tolist() == [[255] * 3, [0, 128, 0]]
    assert decode_rgb(encode(image, "GIF", transparency=1))[0].tolist() == [[0, 0, 255], [255] * 3]


def test_cmyk_jpeg_has_the_right_polarity() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode_rgb(encode(image, "JPEG", quality=100))[0, 0].astype(int) - RED).max() <= 3
    assert not is_plain_jpeg(encode(image, "JPEG"))


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
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n"
        for tag, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
            png += struct.pack(">I", len(content)) + tag + content + struct.pack(">I", zlib.crc32(tag + content))
        with pytest.raises(ImageError, match="178,000,000 pixels"):
            image_size(png, name="bomb.png")


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
    import subprocess
    import sys

    code = "import sys, jahp_pl.images.io; print(sorted({'torch', 'webdataset', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_conversion_reports_only_what_it_lost(photo: Image.Image) -> None:
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    assert convert_rgb(encode(deep, "PNG")).lost == ("bits beyond 8 per sample",)
    assert convert_rgb(encode(photo.convert("CMYK"), "TIFF")).lost == ("CMYK, converted to sRGB",)
    opaque, clear = photo.convert("RGBA"), photo.convert("RGBA")
    clear.putpixel((0, 0), (1, 2, 3, 254))
    assert convert_rgb(encode(clear, "PNG")).lost == ("transparency, composited on white",)
    with pytest.raises(ImageError, match="transparent"):
        convert_rgb(encode(clear, "PNG"), flatten=False)
    for lossless in (photo, photo.convert("L"), photo.convert("P"), opaque):
        assert convert_rgb(encode(lossless, "PNG"), flatten=False).lost == ()


def test_color_with_16_bits_per_sample_reports_the_loss() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(4))  # 4 x 4 pixels of three 16-bit samples
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert convert_rgb(b"\x89PNG\r\n\x1a\n" + data).lost == ("bits beyond 8 per sample",)
