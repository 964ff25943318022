"""Untrusted input costs no more than the decoder's limits allow."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jahp_pl.pillow
from jahp_pl.codec import lockstep
from jahp_pl.codec.bitstream import DEFAULT_MAX_PIXELS, MAX_SIDE, BitstreamError, Header, pack
from jahp_pl.codec.limits import ALWAYS_ACCEPTED_PIXELS, PIXELS_PER_BYTE, max_steps, required_max_pixels
from jahp_pl.codec.targets import Target, TargetError
from tests.support.codec_models import JOINT, Variant, codec_of


def claim(variant: Variant, width: int, height: int) -> bytes:
    """Build a file of some thirty bytes."""
    return pack(Header(codec_of(variant).fingerprint, width, height, -3, 3), b"")


@pytest.mark.parametrize(("width", "height"), [(1, 65535), (65535, 8192), (16384, 8192), (256, 32768), (1025, 1024)])
def test_thirty_bytes_cost_no_more_than_a_moment_by_default(width: int, height: int) -> None:
    codec, data = codec_of(JOINT), claim(JOINT, width, height)
    began = time.process_time()
    with pytest.raises(BitstreamError, match="raise max_pixels"):
        codec.decode(data)
    assert time.process_time() - began < 0.1


def test_the_message_names_the_limit_that_decodes_a_long_image() -> None:
    with pytest.raises(BitstreamError, match=rf"raise max_pixels to {required_max_pixels(65535, 1)} if"):
        codec_of(JOINT).decode(claim(JOINT, 1, 65535))
    steps = 1 + 3 * (4096 - 1)
    assert max_steps(required_max_pixels(65535, 1)) == steps
    assert max_steps(required_max_pixels(65535, 1) - 1) < steps


def test_a_model_without_context_has_no_steps_to_bound() -> None:
    variant = Variant("scale_hyperprior")
    codec = codec_of(variant)
    data = codec.compress(np.zeros((17000, 1, 3), np.uint8))
    assert codec.decompress(data).shape == (3, 17000, 1)
    data = codec_of(JOINT).compress(np.zeros((17000, 1, 3), np.uint8))
    with pytest.raises(BitstreamError, match="3187 steps"):
        codec_of(JOINT).decompress(data)
    assert codec_of(JOINT).decompress(data, required_max_pixels(17000, 1)).shape == (3, 17000, 1)


def test_every_image_of_a_usual_shape_is_accepted_with_its_own_pixels() -> None:
    for width, height in ((1, 5000), (16, 5000), (300, 5000), (3000, 4000), (2048, 16384), (65535, 65535)):
        assert width // 16 + 1 + 3 * (height // 16) <= max_steps(width * height) or height > 4 * width
    assert required_max_pixels(5000, 5000) == 5000**2 <= DEFAULT_MAX_PIXELS
    assert required_max_pixels(MAX_SIDE, MAX_SIDE) == MAX_SIDE**2


def test_pillow_has_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    jahp_pl.pillow.register(codec_of(JOINT))
    thin = codec_of(JOINT).compress(np.zeros((6000, 1, 3), np.uint8))
    assert Image.open(io.BytesIO(thin)).convert("L").size == (1, 6000)
    for width, height in ((1, 65535), (4096, 4096)):
        data = claim(JOINT, width, height)
        with (
            Image.open(io.BytesIO(data)) as image,
            pytest.raises(OSError, match=r"set PIL\.Image\.MAX_IMAGE_PIXELS = N"),
        ):
            image.load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2999)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(thin))


@pytest.mark.parametrize("quality", ["keep", True, 0, 101])
def test_an_invalid_quality_is_named(quality: object) -> None:
    with pytest.raises(ValueError, match=rf"quality {quality!r}: must be"):
        jahp_pl.load_codec().compress(Image.new("RGB", (8, 8)), quality=quality)  # type: ignore[arg-type]
    with pytest.raises(OSError, match=rf"quality {quality!r}: must be"):
        Image.new("RGB", (8, 8)).save(io.BytesIO(), "JAHP", quality=quality)


def test_the_library_names_no_option_of_the_command_line() -> None:
    clear = Image.new("RGBA", (8, 8))
    with pytest.raises(ValueError, match=r"^transparent pixels.*flatten the image onto a background$") as refused:
        codec_of(JOINT).compress(clear)
    assert "--" not in str(refused.value)


@pytest.mark.parametrize("entropy_model", ["joint", "factorized"])
def test_a_decoder_gives_up_when_its_time_is_over(entropy_model: str) -> None:
    codec = codec_of(Variant(entropy_model))  # type: ignore[arg-type]
    data = codec.compress(np.zeros((64, 64, 3), np.uint8))
    assert codec.decompress(data, max_seconds=60).shape == (3, 64, 64)
    assert len(codec.decompress_all([data], max_seconds=60)) == 1
    with pytest.raises(BitstreamError, match=r"longer to decode than the 1e-09 seconds allowed; raise max_seconds"):
        codec.decompress(data, max_seconds=1e-9)


def test_a_forged_file_costs_the_seconds_that_are_allowed() -> None:
    codec = codec_of(JOINT)
    began = time.monotonic()
    with pytest.raises(BitstreamError, match=r"longer to decode than the 0\.5 seconds"):
        codec.decode(claim(JOINT, 4096, 4096), 2**24, max_seconds=0.5)
    assert time.monotonic() - began < 10


def test_by_default_a_byte_may_claim_more_pixels_than_in_any_real_file() -> None:
    flat = np.zeros((768, 768, 3), np.uint8)
    for level in (0, 60, 100):
        data = jahp_pl.load_codec().compress(flat + level, quality=1)
        assert PIXELS_PER_BYTE * len(data) > 1.5 * flat.shape[0] ** 2
    codec = codec_of(JOINT)
    payload = bytes(4 * (2 * ALWAYS_ACCEPTED_PIXELS // PIXELS_PER_BYTE // 4))
    data = pack(Header(codec.fingerprint, 2048, 1024, -3, 3), payload)
    with pytest.raises(BitstreamError, match="longer to decode"):
        codec.decode(data, max_seconds=1e-9)
    with pytest.raises(BitstreamError, match="longer to decode"):
        codec.decode(claim(JOINT, 2048, 1024), 2**21, max_seconds=1e-9)
    with pytest.raises(BitstreamError, match="more than the 1048576 accepted"):
        codec.decode(claim(JOINT, 2048, 1024))
    with pytest.raises(BitstreamError, match="more than the 1048576 accepted"):
        codec.decompress_all([claim(JOINT, 2048, 1024)])


def test_many_files_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "LOCKSTEP_PIXELS", 1)  # one file in each group
    codec = codec_of(JOINT)
    data = codec.compress(np.zeros((64, 64, 3), np.uint8))
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))  # one second passes with every call
    codec.decompress(data, max_seconds=1000)
    used = next(clock)
    assert len(codec.decompress_all([data] * 3, max_seconds=4 * used)) == 3
    with pytest.raises(BitstreamError, match=f"longer to decode than the {2 * used:g} seconds"):
        codec.decompress_all([data] * 3, max_seconds=2 * used)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None,), "must be given as bytes, not NoneType"),
        (("photo.jahp",), "must be given as bytes, not str"),
        ((io.BytesIO(b""),), "must be given as bytes, not BytesIO"),
        ((b"", "9"), "max_pixels '9': must be a whole number or None"),
        ((b"", 1e6), r"max_pixels 1000000\.0: must be a whole number or None"),
        ((b"", None, float("nan")), "max_seconds nan: must be a number of seconds or None"),
        ((b"", None, "5"), "max_seconds '5': must be a number of seconds or None"),
    ],
)
def test_files_and_limits_of_a_wrong_type_are_named(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        codec_of(JOINT).decode(*arguments)
    data, max_pixels, max_seconds = (*arguments, None, None)[:3]
    with pytest.raises(TypeError, match=words):
        codec_of(JOINT).decompress_all([data], max_pixels, max_seconds=max_seconds)


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e19])
def test_a_number_too_large_for_a_float_is_named(value: float) -> None:
    with pytest.raises(TargetError, match="size: must be at most 1e\\+18"):
        Target(size=value)  # type: ignore[arg-type]
