"""Splits the bits of files into latents, hyper-latents, header and coding overhead, and by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jahp_pl.measurement.roundtrip import CodedImage


class RateSplit(NamedTuple):
    """Parts of the rate of a file, in bits per pixel of the image; their sum is `CodingRow.file_bpp`."""

    y: float
    """Cross-entropy of the latents under the float model."""
    z: float
    """Cross-entropy of the hyper-latents; 0 without side information."""
    header: float
    """Bits of the file that are not payload."""
    coder: float
    """The rest: the cost of the range coder, and of exact instead of float parameters; may be negative."""


class Rates(NamedTuple):
    """Rate of one file, or mean over several files."""

    split: RateSplit
    channels_y: Tensor
    """Bits per image pixel of each channel of the latents, (M,)."""
    channels_z: Tensor
    """Bits per image pixel of each channel of the hyper-latents, (N,); (0,) without side information."""


def rates_of(coded: CodedImage) -> Rates:
    """Compute the parts of the rate of one file."""
    pixels = coded.row.height * coded.row.width
    y, z = (bits.double().sum(dim=(1, 2)) / pixels for bits in (coded.bits_y, coded.bits_z))
    header = 8 * coded.row.header_bytes / pixels
    coder = coded.row.file_bpp - float(y.sum()) - float(z.sum()) - header  # so that the parts add up to the file
    return Rates(RateSplit(float(y.sum()), float(z.sum()), header, coder), y, z)


def mean_rates(items: Sequence[Rates]) -> Rates:
    """Average over files with equal weight: at least one file, and all from the same model."""
    splits = torch.tensor([item.split for item in items], dtype=torch.float64).mean(dim=0)
    channels = (torch.stack([getattr(item, name) for item in items]).mean(dim=0) for name in Rates._fields[1:])
    return Rates(RateSplit(*splits.tolist()), *channels)
