"""Decodes many files in groups, as many at a time as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from jahp_pl.codec.bitstream import unpack
from jahp_pl.codec.latents import Decoded, Integers, Rgb
from jahp_pl.codec.limits import Deadline, accepted_pixels

LOCKSTEP_PIXELS = 2**23
"""Pixels that `Codec.decompress_all` decodes at a time: their entropy parameters take 90 MB at 192 latents."""


def lockstep_groups(files: Iterable[bytes], max_pixels: int | None) -> Iterator[list[bytes]]:
    """Split files into consecutive groups of about `LOCKSTEP_PIXELS`."""
    group: list[bytes] = []
    num_pixels = 0
    for data in files:
        header, _ = unpack(data, accepted_pixels(data, max_pixels))
        if group and num_pixels + header.width * header.height > LOCKSTEP_PIXELS:
            yield group
            group, num_pixels = [], 0
        group.append(data)
        num_pixels += header.width * header.height
    if group:
        yield group


def decode_in_groups(
    decode_group: Callable[[Sequence[bytes], int | None, Deadline], Iterator[Decoded[Rgb, Integers]]],
    files: Iterable[bytes],
    max_pixels: int | None,
    max_seconds: float | None,
) -> Iterator[Decoded[Rgb, Integers]]:
    """Decode any number of files in order, one of the `lockstep_groups` at a time.

    Args:
        decode_group: decodes files in lockstep, before a deadline.
        files: whole files.
        max_pixels: maximum number of pixels to accept per file; None for the default, see `limits`.
        max_seconds: time limit in seconds for all files together; None for no limit.

    Raises:
        BitstreamError: if one of them is not a valid file, or the time is up.
    """
    deadline = Deadline(max_seconds)
    for group in lockstep_groups(files, max_pixels):
        yield from decode_group(group, max_pixels, deadline)
