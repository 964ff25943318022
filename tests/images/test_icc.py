"""Color profiles have printable names, and convert to sRGB if they are usable."""

from __future__ import annotations

import numpy as np
from PIL import ImageCms

from jahp_pl.images.icc import profile_name, rgb_to_srgb
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
