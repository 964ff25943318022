"""Which files are decoded together: as many as memory bears."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jahp_pl.codec.bitstream import unpack

LOCKSTEP_PIXELS = 2**23
"""Of images that `Codec.decompress_all` decodes at a time: their entropy parameters take 90 MB at 192 latents."""


def groups(files: Iterable[bytes], max_pixels: int) -> Iterator[list[bytes]]:
    """Files in runs of about `LOCKSTEP_PIXELS`."""
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
