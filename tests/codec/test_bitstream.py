"""The file format round-trips, and a reader trusts nothing in a file."""

from __future__ import annotations

import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms

from jahp_pl.codec.bitstream import (
    LATENT_MAX,
    LATENT_MIN,
    MAX_ICC_BYTES,
    MAX_SIDE,
    BitstreamError,
    Header,
    pack,
    unpack,
    with_icc,
)

HEADER = Header(bytes(range(8)), width=300, height=17, latent_min=-21, latent_max=130)
PAYLOAD = bytes(range(40, 80))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PLAIN, PROFILED = pack(HEADER, PAYLOAD), pack(replace(HEADER, icc=PROFILE), PAYLOAD)


def headers() -> st.SearchStrategy[Header]:
    side = st.integers(1, MAX_SIDE)
    latent = st.integers(LATENT_MIN, LATENT_MAX)
    return st.builds(
        lambda f, w, h, a, b, icc: Header(f, w, h, min(a, b), max(a, b), icc),
        st.binary(min_size=8, max_size=8), side, side, latent, latent, st.binary(max_size=200),
    )  # fmt: skip


def repack(head: bytes, payload: bytes = PAYLOAD) -> bytes:
    """Build a file with the given header and a matching checksum."""
    return head + zlib.crc32(head + payload).to_bytes(4, "little") + payload


def with_profile_field(field: bytes) -> bytes:
    """Build a file with the given profile field, an empty payload and a matching checksum."""
    size = bytes([len(field) & 127 | 128, len(field) >> 7 & 127 | 128, len(field) >> 14])
    if len(field) < 2**14:
        size = bytes([len(field) & 127 | 128, len(field) >> 7]) if len(field) > 127 else bytes([len(field)])
    return repack(b"jahp\x01" + bytes(8) + b"\x05\x05\x00\x00" + size + b"\x00", field)


@given(headers(), st.binary(max_size=400).map(lambda b: b[: len(b) // 4 * 4]))
def test_unpack_returns_what_was_packed(header: Header, payload: bytes) -> None:
    assert unpack(pack(header, payload), max_pixels=MAX_SIDE**2) == (header, payload)


def test_the_layout_is_the_documented_one() -> None:
    fields = b"jahp" + b"\x01" + bytes(range(8))
    fields += bytes([300 & 127 | 128, 300 >> 7]) + bytes([17]) + bytes([2 * 21 - 1]) + bytes([151 & 127 | 128, 1])
    plain = fields + bytes([0, 40])
    assert pack(HEADER, PAYLOAD) == repack(plain)
    profile = zlib.compress(PROFILE, 9)
    fields += bytes([len(profile) & 127 | 128, len(profile) >> 7]) + bytes([40])
    assert repack(fields, profile + PAYLOAD) == PROFILED


def test_a_profile_can_be_added_replaced_and_removed() -> None:
    assert with_icc(PLAIN, PROFILE) == PROFILED
    assert with_icc(PROFILED, b"another") == pack(replace(HEADER, icc=b"another"), PAYLOAD)
    assert with_icc(PROFILED, b"") == PLAIN
    vast = Header(bytes(8), MAX_SIDE, MAX_SIDE, 0, 0)
    assert unpack(with_icc(pack(vast, b""), PROFILE), MAX_SIDE**2)[0] == replace(vast, icc=PROFILE)
    with pytest.raises(BitstreamError, match="cut short"):
        with_icc(PLAIN[:-1], PROFILE)


def test_a_profile_of_the_largest_size_is_kept_and_one_beyond_it_is_not_packed() -> None:
    largest = PROFILE.ljust(MAX_ICC_BYTES, b"\x00")
    assert unpack(with_icc(PLAIN, largest))[0].icc == largest
    with pytest.raises(ValueError, match="the color profile has 1048577 bytes; a file holds at most 1048576"):
        with_icc(PLAIN, largest + b"\x00")
    with pytest.raises(ValueError, match="at most 1048576"):  # incompressible data leaves no room for zlib's header
        with_icc(PLAIN, np.random.default_rng(0).bytes(MAX_ICC_BYTES))


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"no zlib stream", "the color profile is damaged"),
        (zlib.compress(PROFILE)[:-1], "not one zlib stream"),
        (zlib.compress(PROFILE)[:-4] + b"abcd", "the color profile is damaged"),
        (zlib.compress(PROFILE) + b"\x00", "not one zlib stream"),
        (zlib.compress(b""), "not one zlib stream"),
        (zlib.compress(bytes(MAX_ICC_BYTES + 1)), "not one zlib stream of 1 to 1048576 bytes"),
        (zlib.compress(np.random.default_rng(0).bytes(MAX_ICC_BYTES)), "out of the format's range"),
    ],
)
def test_an_invalid_profile_field_is_refused(field: bytes, reason: str) -> None:
    assert unpack(with_profile_field(zlib.compress(b"good")))[0].icc == b"good"
    with pytest.raises(BitstreamError, match=reason):
        unpack(with_profile_field(field))


def test_a_profile_that_inflates_beyond_the_limit_takes_no_more_memory() -> None:
    stream = zlib.compressobj(9)
    field = b"".join(stream.compress(bytes(2**20)) for _ in range(128)) + stream.flush()
    data = with_profile_field(field)
    assert len(data) < MAX_ICC_BYTES + 100, "else its length alone is refused"
    tracemalloc.start()
    with pytest.raises(BitstreamError, match="not one zlib stream of 1 to 1048576 bytes"):
        unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_the_header_of_a_kodak_image_is_within_32_bytes() -> None:
    payload = bytes(4 * 50_000)
    header = Header(bytes(8), 768, 512, -200, 300)
    assert len(pack(header, payload)) - len(payload) <= 32


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        unpack(data)


@given(st.binary(max_size=60), st.binary(max_size=20))
@settings(max_examples=300)
def test_bytes_behind_a_true_start_and_checksum_are_refused_or_a_valid_header(head: bytes, payload: bytes) -> None:
    """A file with a matching checksum may hold nonsense, but the fields of an accepted header are in range."""
    try:
        header, rest = unpack(repack(b"jahp\x01" + bytes(8) + head, payload))
    except BitstreamError:
        return
    assert 1 <= header.width <= MAX_SIDE
    assert 1 <= header.height <= MAX_SIDE
    assert LATENT_MIN <= header.latent_min <= header.latent_max <= LATENT_MAX
    assert len(rest) % 4 == 0
    assert len(header.icc) <= MAX_ICC_BYTES


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a .jahp file"),
        (b"jah", "not a .jahp file"),
        (b"jahp", "cut short"),
        (b"jahp\x03" + bytes(100), "format version 3, but this jahp_pl reads up to 2"),
        (pack(HEADER, PAYLOAD) + b"abc", "3 extra bytes"),
    ],
)
def test_the_message_names_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BitstreamError, match=reason):
        unpack(data)


def test_a_foreign_picture_is_refused() -> None:
    picture = next((Path(__file__).parents[2] / "data" / "kodak").glob("*.png"))
    with pytest.raises(BitstreamError, match=r"not a \.jahp file"):
        unpack(picture.read_bytes())


@pytest.mark.parametrize(
    "fields",
    [
        b"\x00\x05\x00\x00\x00\x28",  # width 0
        b"\x05\x00\x00\x00\x00\x28",  # height 0
        b"\x80\x80\x04\x05\x00\x00\x00\x28",  # width 65536
        b"\x05\x05\x81\x80\x04\x00\x00\x28",  # smallest latent -32769
        b"\x05\x05\x00\x80\x80\x02\x00\x28",  # largest latent 32768
    ],
)
def test_a_field_out_of_range_is_refused_even_with_a_matching_checksum(fields: bytes) -> None:
    with pytest.raises(BitstreamError, match="out of the format's range"):
        unpack(repack(b"jahp\x01" + bytes(8) + fields))


def test_a_payload_of_odd_length_is_refused() -> None:
    with pytest.raises(BitstreamError, match="out of the format's range"):
        unpack(repack(b"jahp\x01" + bytes(8) + b"\x05\x05\x00\x00\x00\x03", b"abc"))


def test_a_number_not_in_its_shortest_form_is_refused() -> None:
    for width in (b"\x85\x00", b"\x80\x80\x80\x80\x80\x01"):
        with pytest.raises(BitstreamError, match="not in its shortest form"):
            unpack(repack(b"jahp\x01" + bytes(8) + width + b"\x05\x00\x00\x00\x28"))


def test_an_image_beyond_the_limit_is_refused_by_its_size() -> None:
    data = pack(Header(bytes(8), MAX_SIDE, MAX_SIDE, 0, 0), b"")
    with pytest.raises(BitstreamError, match=r"65535 x 65535 pixels, more than the \d+ accepted; raise max_pixels"):
        unpack(data)
    assert unpack(data, max_pixels=MAX_SIDE**2)[0].width == MAX_SIDE


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (65536, 5), (5, 65536)])
def test_sides_out_of_range_are_not_packed(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="sides must be from 1 to 65535"):
        pack(Header(bytes(8), width, height, 0, 0), b"")


@pytest.mark.parametrize(("smallest", "largest"), [(-32769, 0), (0, 32768), (1, 0)])
def test_latents_out_of_range_are_not_packed(smallest: int, largest: int) -> None:
    with pytest.raises(ValueError, match="do not fit 16 bits"):
        pack(Header(bytes(8), 5, 5, smallest, largest), b"")
