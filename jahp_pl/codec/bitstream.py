"""The file format: a header that is verified before use, and a range-coded payload. Does not import torch.

    offset  bytes  field
    0       4      magic b"jahp"
    4       1      format version, 1 or 2
    5       8      fingerprint of the weights and tables that made the file
    13      1      version 2 only: flags, varint. Bit 0: a level follows. Bit 1: the image is gray. The rest are zero
            1-3    if bit 0 is set: rate level in steps of 1 / 256, varint, 0 to 65535
            1-3    width in pixels, varint, 1 to 65535
            1-3    height in pixels, varint, 1 to 65535
            1-3    smallest latent, zigzag varint, -32768 to 32767
            1-3    largest minus smallest latent, varint, 0 to 65535
            1-3    length of the color profile below in bytes, varint, 0 (none) to 1048576
            1-5    length of the payload in bytes, varint, a multiple of 4
            4      CRC-32 (zlib) of everything else, little endian
            m      ICC profile of the image's RGB, a zlib stream of 1 to 1048576 bytes; absent for sRGB
            n      payload: z_hat, then y_hat in wavefront order, as little-endian 32-bit words of a range coder

A varint holds 7 bits per byte, lowest first, with the top bit set on all but the last byte; only the shortest form is
valid.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import NamedTuple

from jahp_pl.codec.varint import to_varint
from jahp_pl.errors import JahpError

FILE_SUFFIX = ".jahp"
DECODED_SUFFIX = ".decoded.png"
"""Suffix of an image decoded next to its file; it keeps an original in the same folder from being overwritten."""
MAGIC = b"jahp"
VERSION = 2
"""Newest version that can be read. A file is written as version 1 if it needs nothing newer."""
MAX_LEVEL_STEPS = 65535
"""Largest rate level, see `level_steps`."""
HAS_LEVEL, IS_GRAY = 1, 2
"""Bits of the flags."""
FINGERPRINT_BYTES = 8
MAX_SIDE = 65535
MAX_PIXELS = MAX_SIDE**2
"""Pixels of the largest image that a file can state."""
DEFAULT_MAX_PIXELS = 2**25
"""Default limit on the pixels that a decoder accepts, 34 million, see `limits`. A range-coded payload of any length can
encode any number of symbols, so only an explicit limit keeps a file of 30 bytes from using up all memory."""
MAX_ICC_BYTES = 2**20
"""Maximum size of a color profile, both deflated and inflated."""
LATENT_MIN, LATENT_MAX = -32768, 32767
INCOMPATIBLE_FILE = "an incompatible program made the file; compress the image again"
"""Cause and remedy, for messages about files with a valid checksum that do not decode."""


class BitstreamError(JahpError, ValueError):
    """Bytes that are not a valid file for this decoder; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Header:
    """Information that a decoder needs before the payload."""

    fingerprint: bytes
    """8 bytes, see `Codec.fingerprint`."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    latent_min: int
    """Smallest y_hat in the file."""
    latent_max: int
    """Largest y_hat in the file."""
    icc: bytes = b""
    """ICC profile of the image's RGB, at most `MAX_ICC_BYTES`; empty for sRGB. Not parsed here."""
    level_steps: int | None = None
    """Rate level in steps, see `level_steps`; None for a single-rate model."""
    is_gray: bool = False
    """Whether the image had R = G = B everywhere; the decoder then keeps it gray."""

    @property
    def flags(self) -> int:
        """Flags of version 2; 0 if version 1 suffices."""
        return (HAS_LEVEL if self.level_steps is not None else 0) | (IS_GRAY if self.is_gray else 0)


def pack(header: Header, payload: bytes) -> bytes:
    """Return the bytes of a file with this header and payload.

    Args:
        header: fields of the header; the profile is compressed and the checksum computed here.
        payload: result of `Writer.payload`, a multiple of 4 bytes.

    Raises:
        ValueError: if a field is out of the format's range.
    """
    if not (1 <= header.width <= MAX_SIDE and 1 <= header.height <= MAX_SIDE):
        raise ValueError(f"the image has {header.width} x {header.height} pixels; sides must be from 1 to {MAX_SIDE}")
    if not LATENT_MIN <= header.latent_min <= header.latent_max <= LATENT_MAX:
        raise ValueError(
            f"latents from {header.latent_min} to {header.latent_max} do not fit 16 bits; the model diverged; use an "
            "earlier checkpoint"
        )
    if header.level_steps is not None and not 0 <= header.level_steps <= MAX_LEVEL_STEPS:
        raise ValueError(f"the level is {header.level_steps} steps; it must be from 0 to {MAX_LEVEL_STEPS}")
    assert len(header.fingerprint) == FINGERPRINT_BYTES
    assert len(payload) % 4 == 0
    profile = zlib.compress(header.icc, 9) if header.icc else b""
    if max(len(header.icc), len(profile)) > MAX_ICC_BYTES:
        raise ValueError(
            f"the color profile has {len(header.icc)} bytes; a file holds at most {MAX_ICC_BYTES}; leave it out"
        )
    smallest = header.latent_min
    header_bytes = MAGIC + bytes([2 if header.flags else 1]) + header.fingerprint
    if header.flags:
        header_bytes += to_varint(header.flags)
    if header.level_steps is not None:
        header_bytes += to_varint(header.level_steps)
    header_bytes += to_varint(header.width) + to_varint(header.height)
    zigzag = 2 * smallest if smallest >= 0 else -2 * smallest - 1
    header_bytes += to_varint(zigzag) + to_varint(header.latent_max - smallest)
    header_bytes += to_varint(len(profile)) + to_varint(len(payload))
    crc = zlib.crc32(payload, zlib.crc32(profile, zlib.crc32(header_bytes)))
    return header_bytes + crc.to_bytes(4, "little") + profile + payload


class _Fields(NamedTuple):
    """The fields of a header up to its checksum, not checked yet."""

    flags: int
    level_steps: int | None
    width: int
    height: int
    zigzag: int
    """Smallest latent in its stored form."""
    spread: int
    """Largest minus smallest latent."""
    profile_length: int
    payload_length: int
    end: int
    """Offset of the checksum."""

    @property
    def smallest(self) -> int:
        """Smallest latent."""
        return self.zigzag // 2 if self.zigzag % 2 == 0 else -(self.zigzag + 1) // 2

    def are_valid(self, version: int) -> bool:
        """Check whether all fields are in the format's range."""
        is_size_valid = 1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE
        are_lengths_valid = self.profile_length <= MAX_ICC_BYTES and self.payload_length % 4 == 0
        is_range_valid = self.smallest >= LATENT_MIN and self.smallest + self.spread <= LATENT_MAX
        is_level_valid = (self.level_steps or 0) <= MAX_LEVEL_STEPS
        # Version 2 without flags must be written as version 1.
        are_flags_valid = self.flags <= HAS_LEVEL | IS_GRAY and (version == 1 or self.flags > 0)
        return is_size_valid and are_lengths_valid and is_range_valid and is_level_valid and are_flags_valid


def unpack(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[Header, bytes]:
    """Split a file into header and payload, the inverse of `pack`.

    Allocates no more than a copy of the file and `MAX_ICC_BYTES`.

    Args:
        data: the whole file.
        max_pixels: largest width times height to accept.

    Raises:
        BitstreamError: if the data has another format or version, is truncated, too long or altered, or states an image
            larger than `max_pixels`.
    """
    if data[:4] != MAGIC:
        raise BitstreamError(
            "not a .jahp file (it does not start with 'jahp'); give one that `jahp compress` wrote"
            if data
            else "the file is empty; fetch it again"
        )
    if len(data) < 5:
        raise BitstreamError("the file is cut short: it ends within its header; fetch it again")
    version = data[4]
    if not 1 <= version <= VERSION:
        raise BitstreamError(f"format version {version}, but this jahp_pl reads up to {VERSION}; upgrade jahp_pl")
    fields = _read_fields(data, version)
    rest = _checked_rest(data, fields)
    if not fields.are_valid(version):
        raise BitstreamError(f"the header has values out of the format's range; {INCOMPATIBLE_FILE}")
    if fields.width * fields.height > max_pixels:
        raise BitstreamError(
            f"the file declares {fields.width} x {fields.height} pixels, more than the {max_pixels} accepted; raise "
            "max_pixels if you trust it"
        )
    profile, payload = rest[: fields.profile_length], rest[fields.profile_length :]
    header = Header(
        fingerprint=data[5 : 5 + FINGERPRINT_BYTES],
        width=fields.width,
        height=fields.height,
        latent_min=fields.smallest,
        latent_max=fields.smallest + fields.spread,
        icc=_inflate(profile) if profile else b"",
        level_steps=fields.level_steps,
        is_gray=bool(fields.flags & IS_GRAY),
    )
    return header, payload


def _read_fields(data: bytes, version: int) -> _Fields:
    """Read the fields after the fingerprint."""
    start = 5 + FINGERPRINT_BYTES
    if len(data) < start:
        raise BitstreamError("the file is cut short: it ends within its header; fetch it again")
    flags, level_steps = 0, None
    if version > 1:
        flags, start = _read_varint(data, start)
        if flags & HAS_LEVEL:
            level_steps, start = _read_varint(data, start)
    width, start = _read_varint(data, start)
    height, start = _read_varint(data, start)
    zigzag, start = _read_varint(data, start)
    spread, start = _read_varint(data, start)
    profile_length, start = _read_varint(data, start)
    payload_length, start = _read_varint(data, start)
    return _Fields(flags, level_steps, width, height, zigzag, spread, profile_length, payload_length, start)


def _checked_rest(data: bytes, fields: _Fields) -> bytes:
    """Check the length and the checksum of a file, and return its profile and payload."""
    header_bytes, crc, rest = data[: fields.end], data[fields.end : fields.end + 4], data[fields.end + 4 :]
    expected = fields.profile_length + fields.payload_length
    if len(crc) < 4 or len(rest) < expected:
        raise BitstreamError(
            f"the file is cut short: {len(rest)} of {expected} bytes after its header are present; fetch it again"
        )
    if len(rest) > expected:
        raise BitstreamError(f"the file has {len(rest) - expected} extra bytes after its payload; fetch it again")
    if zlib.crc32(rest, zlib.crc32(header_bytes)) != int.from_bytes(crc, "little"):
        raise BitstreamError("the file is damaged (its checksum does not match); fetch it again")
    return rest


def with_icc(data: bytes, icc: bytes) -> bytes:
    """Replace the color profile of a file. The payload does not depend on it, because RGB is coded as given.

    Args:
        data: a whole file.
        icc: the profile; empty for sRGB.

    Raises:
        BitstreamError: see `unpack`.
        ValueError: if the profile exceeds `MAX_ICC_BYTES`.
    """
    header, payload = unpack(data, MAX_PIXELS)
    return pack(replace(header, icc=icc), payload)


def _inflate(profile: bytes) -> bytes:
    """Inflate a zlib stream, reading at most one byte more than the limit."""
    stream = zlib.decompressobj()
    try:
        icc = stream.decompress(profile, MAX_ICC_BYTES + 1)
    except zlib.error:
        raise BitstreamError(f"the color profile is damaged; {INCOMPATIBLE_FILE}") from None
    if not (stream.eof and 0 < len(icc) <= MAX_ICC_BYTES and not stream.unused_data):
        raise BitstreamError(
            f"the color profile is not one zlib stream of 1 to {MAX_ICC_BYTES} bytes; {INCOMPATIBLE_FILE}"
        )
    return icc


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Return a varint and the offset after it."""
    value = 0
    for position in range(5):
        if start + position >= len(data):
            raise BitstreamError("the file is cut short: it ends within its header; fetch it again")
        byte = data[start + position]
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            if byte == 0 and position > 0:
                break
            return value, start + position + 1
    raise BitstreamError("the header is damaged: a number is not in its shortest form; fetch the file again")
