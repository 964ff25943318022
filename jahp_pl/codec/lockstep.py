"""Groups files for decoding in lockstep, as many as memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jahp_pl.codec.bitstream import unpack

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
