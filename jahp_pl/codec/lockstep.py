"""Decodes many files in groups, as many at a time as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from jahp_pl.codec.bitstream import unpack
from jahp_pl.codec.latents import Decoded, Integers, Rgb

LOCKSTEP_PIXELS = 2**23
"""Pixels that `Codec.decompress_all` decodes at a time: their entropy parameters take 90 MB at 192 latents."""


def lockstep_groups(files: Iterable[bytes], max_pixels: int) -> Iterator[list[bytes]]:
    """Split files into consecutive groups of about `LOCKSTEP_PIXELS`."""
    group: list[bytes] = []
    num_pixels = 0
    for data in files:
        header, _ = unpack(data, max_pixels)
        if group and num_pixels + header.width * header.height > LOCKSTEP_PIXELS:
            yield group
            group, num_pixels = [], 0
        group.append(data)
        num_pixels += header.width * header.height
    if group:
        yield group


def decode_in_groups(
    decode_all: Callable[[list[bytes], int, float | None], list[Decoded[Rgb, Integers]]],
    files: Iterable[bytes],
    max_pixels: int,
    max_seconds: float | None,
) -> Iterator[Decoded[Rgb, Integers]]:
    """Decode any number of files in order, one of the `lockstep_groups` at a time.

    Args:
        decode_all: `Codec.decode_all`, or that of another runtime.
        files: whole files.
        max_pixels: largest image to accept.
        max_seconds: time to accept for each group; None is any.

    Raises:
        BitstreamError: if one of them is not a valid file, or the time of a group is up.
    """
    for group in lockstep_groups(files, max_pixels):
        yield from decode_all(group, max_pixels, max_seconds)
