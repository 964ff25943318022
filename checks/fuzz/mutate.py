"""Mutates files. Most mutations repair the checksum, so that decoding gets past its check.

Every case is a pure function of a seed and its number.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jahp_pl.codec.bitstream import DEFAULT_MAX_PIXELS, HAS_LEVEL, IS_GRAY, MAX_ICC_BYTES, MAX_PIXELS, MAX_SIDE, unpack
from jahp_pl.codec.varint import to_varint

T = TypeVar("T")

SMALL_PIXELS = 2**16
"""Pixel limit of most cases, because a decoder needs time and memory in proportion to the size that it accepts."""
EDGES = (0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 4095, 4096, 16384, 32767, 32768, 65534, 65535, 65536)
"""Numbers at which a decoder's behavior may change."""


class Case(NamedTuple):
    """File that a decoder must decode or refuse."""

    strategy: str
    subject: int
    """Index of the subject whose codec reads it."""
    data: bytes
    max_pixels: int


class FileParts(NamedTuple):
    """Parts of a file, which can be reassembled with a valid checksum whatever they contain."""

    fingerprint: bytes
    width: int
    height: int
    smallest: int
    spread: int
    profile: bytes
    """Color profile in its stored form, deflated."""
    payload: bytes
    flags: int = 0
    """Flags of version 2; a file without flags is of version 1."""
    level_steps: int | None = None
    profile_length: int | None = None
    """Length of the profile to state in the header; None for the true one."""
    payload_length: int | None = None
    """Length of the payload to state in the header; None for the true one."""


def damaged_case(seed: int, number: int, corpus: Sequence[Sequence[bytes]]) -> Case:
    """Return the case with this number.

    Args:
        seed: seed of a run.
        number: number of the case, from 0.
        corpus: valid files of each subject.
    """
    rng = np.random.default_rng([seed, number])
    strategy = STRATEGIES[int(rng.integers(len(STRATEGIES)))]
    subject = int(rng.integers(len(corpus)))
    data = choose(rng, corpus[subject])
    other = choose(rng, choose(rng, corpus))
    max_pixels = DEFAULT_MAX_PIXELS if strategy is vast_size else SMALL_PIXELS
    return Case(strategy.__name__, subject, strategy(rng, data, other), max_pixels)


# --- without a valid checksum ---------------------------------------------------------------------------------------


def flipped_bits(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Flip one to eight bits."""
    result = np.frombuffer(data, np.uint8).copy()
    for bit in rng.integers(8 * len(data), size=rng.integers(1, 9)):
        result[bit // 8] ^= 1 << bit % 8
    return result.tobytes()


def other_bytes(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Overwrite a run of bytes with zeros, ones or random values."""
    start = int(rng.integers(len(data)))
    return _overwritten(rng, data, start)


def truncated(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Truncate a file."""
    return data[: int(rng.integers(len(data)))]


def extended(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Append bytes to a file."""
    tail = (rng.bytes(int(rng.integers(1, 100))), bytes(int(rng.integers(1, 100))), data, other)
    return data + choose(rng, tail)


def spliced(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Join the beginning of one file and the end of another."""
    return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]


def garbage(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Put random bytes after the first 0 to 13 bytes of a valid file."""
    return data[: int(choose(rng, (0, 4, 5, 13)))] + rng.bytes(int(rng.integers(200)))


# --- with a valid checksum ------------------------------------------------------------------------------------------


def garbage_behind_checksum(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Put a random header with a valid checksum after a valid magic, version and fingerprint."""
    head, rest = data[:13] + rng.bytes(int(rng.integers(6, 20))), rng.bytes(4 * int(rng.integers(20)))
    return head + zlib.crc32(head + rest).to_bytes(4, "little") + rest


def header_field(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Change one number of the header, to a valid or an invalid value."""
    parts, field = take_apart(data), choose(rng, ("width", "height", "smallest", "spread", "flags", "level_steps"))
    number = _number(rng) * (-1 if field == "smallest" and rng.random() < 0.5 else 1)
    fields: dict[str, Any] = {field: number}
    return put_together(parts._replace(**fields))


def lengths(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Change the lengths in the header, so that they do not match the contents."""
    parts = take_apart(data)
    near = [n + int(rng.integers(-8, 9)) for n in (len(parts.profile), len(parts.payload))]
    profile, payload = (max(0, n) if rng.random() < 0.5 else _number(rng) for n in near)
    if rng.random() < 0.3:  # move the boundary between the two, keeping the sum
        profile = int(rng.integers(len(parts.profile) + len(parts.payload) + 1))
        payload = len(parts.profile) + len(parts.payload) - profile
    return put_together(parts._replace(profile_length=profile, payload_length=payload))


def gray_or_level(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Switch the flag of gray images, or add, remove or change the level."""
    parts = take_apart(data)
    if rng.random() < 0.3:
        return put_together(parts._replace(flags=parts.flags ^ IS_GRAY))
    if rng.random() < 0.3:
        return put_together(
            parts._replace(flags=parts.flags ^ HAS_LEVEL, level_steps=None if parts.level_steps else 300)
        )
    level_steps = int(choose(rng, (*EDGES, 256, 511, 512, 767, 768, 769, 65535, 65536)))
    return put_together(parts._replace(flags=parts.flags | HAS_LEVEL, level_steps=level_steps))


def image_size(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Change the size to another accepted one, perhaps long and thin."""
    width = int(2 ** rng.uniform(0, 16))
    height = int(2 ** rng.uniform(0, np.log2(SMALL_PIXELS / width)))
    width, height = (width, height) if rng.random() < 0.5 else (height, width)
    return put_together(take_apart(data)._replace(width=width, height=height))


def vast_size(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Change the size to one beyond the decoder's default limit."""
    width = int(rng.integers(DEFAULT_MAX_PIXELS // MAX_SIDE + 1, MAX_SIDE + 1))
    height = int(rng.integers(DEFAULT_MAX_PIXELS // width + 1, MAX_SIDE + 1))
    return put_together(take_apart(data)._replace(width=width, height=height))


def latent_range(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Change the range of latents to another valid one, from a single value to all 16-bit ones."""
    spread = min(65535, int(2 ** rng.uniform(0, 17)) - 1)
    smallest = int(rng.integers(-32768, 32768 - spread))
    if rng.random() < 0.5:  # near zero, where most latents are
        smallest = max(-32768, min(-spread // 2, 32767 - spread))
    return put_together(take_apart(data)._replace(smallest=smallest, spread=spread))


def payload_bytes(rng: np.random.Generator, data: bytes, _other: bytes) -> bytes:
    """Change some bytes of the payload."""
    parts = take_apart(data)
    if not parts.payload:
        return data
    payload = parts.payload
    for _ in range(int(rng.integers(1, 4))):
        payload = _overwritten(rng, payload, int(rng.integers(len(payload))))
    return put_together(parts._replace(payload=payload))


def payload_words(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Cut, repeat or extend the words of the payload, or replace them by another file's, random, constant or none."""
    parts = take_apart(data)
    old, foreign, count = parts.payload, take_apart(other).payload, 4 * int(rng.integers(1, 50))
    at = 4 * int(rng.integers(len(old) // 4 + 1))
    options = (
        old[:at], old[at:], old[:at] + old, old + bytes(count), old + rng.bytes(count), foreign, old[:at] + foreign,
        rng.bytes(count), rng.bytes(100 * count), bytes(count), b"\xff" * count, b"\xff" * len(old), b"",
    )  # fmt: skip
    payload = choose(rng, options)
    return put_together(parts._replace(payload=payload))


def several_fields(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Change size, range and payload at once."""
    steps = [image_size, latent_range, payload_bytes, payload_words]
    for step in rng.permutation(len(steps))[: int(rng.integers(2, 5))]:
        data = steps[int(step)](rng, data, other)
    return data


def other_model(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Change the fingerprint, slightly or to another model's."""
    parts, theirs = take_apart(data), take_apart(other).fingerprint
    at = int(rng.integers(8))
    near = (
        parts.fingerprint[:at]
        + bytes([parts.fingerprint[at] ^ 1 << int(rng.integers(8))])
        + parts.fingerprint[at + 1 :]
    )
    return put_together(parts._replace(fingerprint=choose(rng, (near, theirs))))


def foreign_insides(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Give another file, possibly of another model, this model's fingerprint."""
    return put_together(take_apart(other)._replace(fingerprint=take_apart(data).fingerprint))


def profile(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Replace the profile by a zlib stream that is damaged, repeated, empty or too large, or by other bytes."""
    parts = take_apart(data)
    good = zlib.compress(rng.bytes(int(rng.integers(1, 300))))
    size = MAX_ICC_BYTES + int(choose(rng, (-1, 0, 1, 10 * MAX_ICC_BYTES)))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: good,
        lambda: good + good,
        lambda: good[: int(rng.integers(len(good)))],
        lambda: _overwritten(rng, good, int(rng.integers(len(good)))),
        lambda: zlib.compress(b""),
        lambda: zlib.compress(bytes(size), 9),
        lambda: rng.bytes(int(rng.integers(1, 300))),
        lambda: bytes(int(rng.integers(1, 300))),
    )
    field = choose(rng, kinds)()
    return put_together(parts._replace(profile=field))


STRATEGIES: tuple[Callable[[np.random.Generator, bytes, bytes], bytes], ...] = (
    flipped_bits, other_bytes, truncated, extended, spliced, garbage, garbage_behind_checksum, header_field, lengths,
    image_size, vast_size, latent_range, payload_bytes, payload_words, several_fields, other_model, foreign_insides,
    profile, gray_or_level,
)  # fmt: skip


# --- parts ----------------------------------------------------------------------------------------------------------


def take_apart(data: bytes) -> FileParts:
    """Split a valid file into its parts."""
    header, payload = unpack(data, MAX_PIXELS)
    profile = zlib.compress(header.icc, 9) if header.icc else b""
    size, spread = (header.width, header.height), header.latent_max - header.latent_min
    flags, level_steps = header.flags, header.level_steps
    return FileParts(header.fingerprint, *size, header.latent_min, spread, profile, payload, flags, level_steps)


def put_together(parts: FileParts) -> bytes:
    """Assemble a file with a valid checksum."""
    zigzag = 2 * parts.smallest if parts.smallest >= 0 else -2 * parts.smallest - 1
    profile_length = len(parts.profile) if parts.profile_length is None else parts.profile_length
    payload_length = len(parts.payload) if parts.payload_length is None else parts.payload_length
    start = [parts.flags] if parts.flags or parts.level_steps is not None else []  # otherwise version 1
    start += [parts.level_steps] if parts.level_steps is not None else []
    numbers = (*start, parts.width, parts.height, zigzag, parts.spread, profile_length, payload_length)
    version = b"\x02" if start else b"\x01"
    head = b"jahp" + version + parts.fingerprint + b"".join(to_varint(number) for number in numbers)
    crc = zlib.crc32(head + parts.profile + parts.payload)
    return head + crc.to_bytes(4, "little") + parts.profile + parts.payload


def _number(rng: np.random.Generator) -> int:
    return int(choose(rng, EDGES)) if rng.random() < 0.5 else int(2 ** rng.uniform(0, 40)) - 1


def _overwritten(rng: np.random.Generator, data: bytes, start: int) -> bytes:
    length = min(len(data) - start, int(2 ** rng.uniform(0, 8)))
    run = choose(rng, (bytes(length), b"\xff" * length, rng.bytes(length)))
    return data[:start] + run + data[start + length :]


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draw one of the options."""
    return options[int(rng.integers(len(options)))]
