"""Every truncation and every flipped bit of a file is refused by each of its readers.

checks/fuzz covers damage with a valid checksum.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image, UnidentifiedImageError

import jahp_pl.pillow  # noqa: F401  registers the format
from jahp_pl.codec.bitstream import BitstreamError, Header, pack, unpack
from tests.support.codec_models import GOLDEN, JOINT, Variant, codec_of, kodak_crop
from tests.support.profiles import DISPLAY_P3

HEADER = Header(bytes(range(8)), width=300, height=17, latent_min=-21, latent_max=130)
PLAIN = pack(HEADER, bytes(range(40, 80)))
PROFILED = pack(replace(HEADER, icc=DISPLAY_P3), bytes(range(40, 80)))
Reader = Callable[[bytes], object]


def small_file(variant: Variant) -> bytes:
    return codec_of(variant).compress(kodak_crop("kodim05")[:20, :20])


def golden_file() -> bytes:
    return (GOLDEN / "joint.jahp").read_bytes()


def opened(data: bytes) -> object:
    return Image.open(io.BytesIO(data))


def flipped(data: bytes, bit: int) -> bytes:
    result = bytearray(data)
    result[bit // 8] ^= 1 << bit % 8
    return bytes(result)


FACTORIZED = Variant("factorized")
CASES: dict[str, tuple[Callable[[], bytes], Reader]] = {
    "unpack, plain": (lambda: PLAIN, unpack),
    "unpack, with a profile": (lambda: PROFILED, unpack),
    "codec, joint": (lambda: small_file(JOINT), lambda data: codec_of(JOINT).decode(data)),
    "codec, factorized": (lambda: small_file(FACTORIZED), lambda data: codec_of(FACTORIZED).decode(data)),
    "Pillow": (golden_file, opened),
}


@pytest.mark.parametrize("case", CASES)
def test_every_truncation_is_refused(case: str) -> None:
    make, read = CASES[case]
    data = make()
    read(data)
    for length in range(len(data)):
        with pytest.raises((BitstreamError, UnidentifiedImageError), match=r"cut short|is empty|not a \.jahp|identify"):
            read(data[:length])


@pytest.mark.parametrize("case", CASES)
def test_every_flipped_bit_is_refused(case: str) -> None:
    make, read = CASES[case]
    data = make()
    for bit in range(8 * len(data)):
        with pytest.raises((BitstreamError, UnidentifiedImageError)):
            read(flipped(data, bit))
