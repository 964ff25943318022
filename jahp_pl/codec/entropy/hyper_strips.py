"""Cuts h_s into strips of rows, which bound its memory, for every runtime. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jahp_pl.codec.transforms.tiles import HYPER_HALO
from jahp_pl.strides import HYPER_STRIDE

STRIP_POSITIONS = 2**13
"""Latent positions per strip of h_s: 40 MB at 192 channels."""


class HyperStrip(NamedTuple):
    """A strip of rows of latents, and the rows of z_hat on which it depends."""

    first: int
    """First row of latents."""
    top: int
    bottom: int
    """h_s is applied to rows [top, bottom) of z_hat."""
    kept: slice
    """Rows of its output that belong to the strip."""


def hyper_strips(height: int, width: int, num_rows: int, halo: int = HYPER_HALO) -> Iterator[HyperStrip]:
    """Cut a map of latents into strips.

    Args:
        height, width: size of the map.
        num_rows: rows of its z_hat.
        halo: extra rows of z_hat on either side of a strip on which it depends; by default, that of the paper's h_s. At
            the borders of the image there are none, because the network pads with zeros there.

    Yields:
        The strips from top to bottom.
    """
    step = max(1, STRIP_POSITIONS // (width * HYPER_STRIDE))  # rows of z_hat
    for first in range(0, -(-height // HYPER_STRIDE), step):
        top, bottom = max(first - halo, 0), min(first + step + halo, num_rows)
        start, stop = HYPER_STRIDE * first, min(HYPER_STRIDE * (first + step), height)
        yield HyperStrip(start, top, bottom, slice(start - HYPER_STRIDE * top, stop - HYPER_STRIDE * top))
