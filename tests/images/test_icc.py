"""Color profiles have printable names, and convert to sRGB if they are usable and not kept."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from jahp_pl.images.icc import profile_name, rgb_to_srgb
from jahp_pl.images.io import convert_rgb, decode_rgb, is_plain_jpeg
from tests.support.image_files import encode, pixels
from tests.support.profiles import DISPLAY_P3


def named(name: bytes) -> bytes:
    return DISPLAY_P3.replace(b"wide", name)


def test_a_profile_is_named_by_its_description() -> None:
    assert profile_name(DISPLAY_P3) == "wide"
    assert profile_name(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) == "sRGB built-in"


def test_a_long_name_is_shortened_to_one_line() -> None:
    assert profile_name(named(b"a\nb\t")) == "a b"
    assert profile_name(named(b"\x1b[2J")) == "[2J"
    assert profile_name(named(bytes(4))) == "unnamed"
    long = DISPLAY_P3.replace(b"\0\0\0\x05wide\0" + bytes(70), b"\0\0\0\x46" + b"x" * 69 + bytes(6))
    assert profile_name(long) == "x" * 60


def test_an_invalid_profile_is_called_unreadable_and_changes_no_pixel() -> None:
    rgb = (5 * np.arange(48)).astype(np.uint8).reshape(4, 4, 3)
    rgb[..., 1] = 20
    for profile in (b"", b"no profile", DISPLAY_P3[:100]):
        assert profile_name(profile) == "unreadable"
        assert np.array_equal(rgb_to_srgb(rgb, profile), rgb)
    assert not np.array_equal(rgb_to_srgb(rgb, DISPLAY_P3), rgb)


def test_a_wide_gamut_profile_is_converted_to_srgb() -> None:
    """Display P3 has reds outside sRGB; its (234, 51, 35) is the purest red of sRGB."""
    image = Image.new("RGB", (32, 32), (234, 51, 35))
    decoded = decode_rgb(encode(image, "PNG", icc_profile=DISPLAY_P3))
    assert np.abs(decoded[0, 0].astype(int) - (255, 0, 0)).max() <= 4
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
