"""Every format that is written shows the same colors, and keeps the pixels unless it is called lossy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from jahp_pl.images import writing
from jahp_pl.images.io import (
    ImageError,
    decode_rgb,
)
from jahp_pl.images.writing import LOSSY_FORMATS, encode_rgb, output_format
from tests.support.profiles import DISPLAY_P3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif", ".bmp", ".ppm", ".jp2"])
def test_every_format_shows_the_colors_that_a_profile_means(suffix: str) -> None:
    """In formats that cannot hold a profile, the colors are converted."""
    rgb = np.full((16, 16, 3), (234, 51, 35), np.uint8)
    shown = decode_rgb(encode_rgb(rgb, suffix, DISPLAY_P3))
    assert np.abs(shown.astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif", ".bmp"])
def test_an_invalid_profile_does_not_lose_the_image(photo: Image.Image, suffix: str) -> None:
    for profile in (b"no profile", DISPLAY_P3[:-100], bytes(2**20)):
        assert decode_rgb(encode_rgb(np.asarray(photo), suffix, profile)).shape == (64, 96, 3)


def test_an_image_is_encoded_in_the_format_of_the_suffix_or_refused(photo: Image.Image) -> None:
    assert np.array_equal(decode_rgb(encode_rgb(np.asarray(photo), ".PNG")), np.asarray(photo))
    for suffix, reason in {".nope": "is not an image format", ".gif": "GIF may not keep colors", ".ico": "ICO"}.items():
        with pytest.raises(ImageError, match=rf"'\{suffix}': {reason}.*; use \.png, \.tif"):
            encode_rgb(np.asarray(photo), suffix)
    with pytest.raises(ImageError, match=r"use \.png"):
        encode_rgb(np.zeros((1, 16400, 3), np.uint8), ".webp")


def test_every_format_that_is_written_keeps_the_pixels_unless_it_is_called_lossy() -> None:
    rng = np.random.default_rng(0)
    Image.init()
    written = [suffix for suffix, name in Image.EXTENSION.items() if name in writing._OPTIONS]
    assert {".png", ".webp", ".tif", ".jp2", ".bmp", ".ppm", ".jpg", ".avif"} <= set(written)
    for height, width in ((1, 1), (7, 5), (64, 96)):
        rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        for suffix in written:
            with Image.open(io.BytesIO(encode_rgb(rgb, suffix))) as image:
                shown = np.asarray(image.convert("RGB"))
            assert shown.shape == rgb.shape
            assert np.array_equal(shown, rgb) == (output_format(suffix) not in LOSSY_FORMATS), suffix
