"""Where the bits of files go: latents, hyper-latents, header, and what the range coder adds; and which channels take
them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jahp_pl.measurement.roundtrip import CodedImage


class RateSplit(NamedTuple):
    """Parts of the rate of a file, in bits per pixel of the image; they add up to `CodingRow.file_bpp`."""

    y: float
    """Cross-entropy of the latents under the float model."""
    z: float
    """Of the hyper-latents; 0 without side information."""
    header: float
    """What is not payload."""
    coder: float
    """The rest: exact instead of float parameters, the range coder's precision and its ending. May be below 0."""


class Rates(NamedTuple):
    """The rate of one file, or the mean over several."""

    split: RateSplit
    channels_y: Tensor
    """(M,): bits per pixel of the image that each channel of the latents takes."""
    channels_z: Tensor
    """(N,): of the hyper-latents; (0,) without side information."""


def rates(coded: CodedImage) -> Rates:
    """Where the bits of one file went."""
    pixels = coded.row.height * coded.row.width
    y, z = (bits.double().sum(dim=(1, 2)) / pixels for bits in (coded.bits_y, coded.bits_z))
    header = 8 * coded.row.header_bytes / pixels
    coder = coded.row.file_bpp - float(y.sum()) - float(z.sum()) - header
    return Rates(RateSplit(float(y.sum()), float(z.sum()), header, coder), y, z)


def mean_rates(items: Sequence[Rates]) -> Rates:
    """Means over files of equal weight; at least one, all of one model."""
    splits = torch.tensor([item.split for item in items], dtype=torch.float64).mean(dim=0)
    channels = (torch.stack([getattr(item, name) for item in items]).mean(dim=0) for name in Rates._fields[1:])
    return Rates(RateSplit(*splits.tolist()), *channels)
