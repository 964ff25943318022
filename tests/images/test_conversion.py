"""Rotated, gray, deep and transparent images become upright 8-bit RGB, and what they lose is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jahp_pl.images.io import ImageError, convert_image, convert_rgb, decode_rgb, is_plain_jpeg
from tests.support.colored_files import png
from tests.support.image_files import encode, pixels


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


@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white_become_three_equal_channels(photo: Image.Image, mode: str) -> None:
    gray = photo.convert(mode)
    decoded = decode_rgb(encode(gray, "PNG"))
    assert np.array_equal(decoded, pixels(gray))
    assert (decoded == decoded[..., :1]).all()


def test_sixteen_bit_gray_keeps_its_white_and_rounds(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535, 32768, 384, 386]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "gray.png")
    assert decode_rgb(tmp_path / "gray.png")[0, :, 0].tolist() == [0, 1, 255, 128, 1, 2]
    Image.fromarray(values).save(tmp_path / "gray.tif")
    assert decode_rgb(tmp_path / "gray.tif")[0, :, 1].tolist() == [0, 1, 255, 128, 1, 2]


def test_sixteen_bit_color_becomes_eight_bit() -> None:
    values = np.array([[[0, 65535, 32896], [65535, 0, 257]]], dtype=">u2")
    assert decode_rgb(png(values, depth=16, color=2, width=2)).tolist() == [[[0, 255, 128], [255, 0, 1]]]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_samples_are_scaled_by_the_white_that_holds_them(white: float) -> None:
    image = Image.fromarray((np.array([[0.0, 0.5, 1.0]]) * white).astype(np.float32))
    assert decode_rgb(encode(image, "TIFF"))[0, :, 2].tolist() in ([0, 127, 255], [0, 128, 255])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e6, 1.02, 31.0, 256.0, 4095.0])
def test_float_samples_without_a_known_white_are_refused(value: float) -> None:
    image = Image.fromarray(np.array([[0.0, value]], dtype=np.float32))
    with pytest.raises(ImageError, match=r"no known white|white is not known"):
        decode_rgb(encode(image, "TIFF"))


def test_dark_integer_samples_whose_white_may_be_two_values_are_refused() -> None:
    image = Image.fromarray(np.array([[0, 260]], dtype=np.int32))
    with pytest.raises(ImageError, match="largest sample is 260, so white is not known"):
        decode_rgb(encode(image, "TIFF"))
    image = Image.fromarray(np.array([[0, 16384]], dtype=np.int32))
    assert decode_rgb(encode(image, "TIFF"))[0, :, 0].tolist() == [0, 64]


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


def test_premultiplied_gray_is_composited_on_white() -> None:
    image = Image.new("LA", (2, 1), (200, 255))
    image.putpixel((1, 0), (200, 0))
    assert convert_image(image.convert("La")).rgb[0].tolist() == [[200] * 3, [255] * 3]


def test_a_png_without_its_palette_is_refused() -> None:
    whole = png(np.zeros((4, 4), np.uint8), 8, 3, (b"PLTE", bytes([1, 2, 3])), width=4)
    assert decode_rgb(whole)[0, 0].tolist() == [1, 2, 3]
    with pytest.raises(ImageError, match="without the palette"):
        decode_rgb(png(np.zeros((4, 4), np.uint8), 8, 3, width=4))


def test_cmyk_jpeg_has_the_right_polarity() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode_rgb(encode(image, "JPEG", quality=100))[0, 0].astype(int) - (255, 0, 0)).max() <= 3
    assert not is_plain_jpeg(encode(image, "JPEG"))


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
    rows = np.tile(np.arange(24, dtype=np.uint8), (4, 1))  # 4 x 4 pixels of three 16-bit samples
    assert convert_rgb(png(rows, depth=16, color=2, width=4)).lost == ("bits beyond 8 per sample",)
