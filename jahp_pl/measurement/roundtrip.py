"""Codes one image to a file on disk, reads the file back, decodes it from its bytes alone, and measures the result."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from jahp_pl.codec.bitstream import MAX_PIXELS
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latents import count_mismatches
from jahp_pl.codec.targets import Target
from jahp_pl.files.atomic import write_atomically
from jahp_pl.quality import compare_images


class CodingRow(NamedTuple):
    """Size and quality of one file, or means over several files."""

    name: str
    """Name of the image."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    file_bytes: int
    """Length of the whole file."""
    header_bytes: int
    """Bytes of the file that are not payload."""
    file_bpp: float
    """Bits per pixel of the whole file."""
    cross_entropy_bpp: float
    """Bits per pixel of the rounded latents under the float model."""
    exact_bpp: float
    """Bits per pixel of the rounded latents under the codec's exact parameters."""
    file_psnr: float
    """PSNR of the decoded 8-bit image in dB."""
    file_ms_ssim: float | None
    """MS-SSIM of the decoded 8-bit image, from 0 to 1; None if a side is too short (`quality.MS_SSIM_MIN_SIDE`)."""
    mismatched_symbols: int
    """Number of latents and hyper-latents that were decoded differently; anything but 0 is a bug."""
    encode_seconds: float
    """Seconds from the image to the file on disk."""
    decode_seconds: float
    """Seconds from the file on disk to the image."""
    level: float | None = None
    """Rate level of the file, or the mean level; None for a single-rate model."""

    @property
    def gap_percent(self) -> float:
        """Excess of the file over the float model's cross-entropy, in percent; infinite if that is 0."""
        return 100 * (self.file_bpp / self.cross_entropy_bpp - 1) if self.cross_entropy_bpp else math.inf


class CodedImage(NamedTuple):
    """Image that was coded to a file and decoded, with the bits of its latents."""

    row: CodingRow
    original: Tensor
    """(3, H, W) uint8."""
    decoded: Tensor
    """(3, H, W) uint8."""
    y_hat: Tensor
    """Quantized latents, (M, h, w), integers as float32."""
    bits_y: Tensor
    """Bits of each latent under the float model, (M, h, w)."""
    bits_z: Tensor
    """Bits of each hyper-latent, (N, ceil(h / 4), ceil(w / 4)); (0, 0, 0) without side information."""


@torch.no_grad()
def code_image(
    codec: Codec, image: Tensor, name: str, path: Path, target: Target | None = None, effort: int = 0
) -> CodedImage:
    """Encode `image` to the file `path`, decode the file, and measure its size, quality and times.

    Args:
        codec: codec of the model to measure.
        image: (3, H, W) uint8.
        name: name of the image in the row.
        path: path of the file; replaced if it exists.
        target: rate or quality to request from a variable-rate model.
        effort: effort of the encoder, see `Codec.compress`.

    Raises:
        ValueError: if the codec cannot code the latents, or does not support the effort.
        WriteError: if the disk is full.
    """
    start = time.perf_counter()
    encoded = codec.encode(image, target, effort=effort, measure=True)
    assert encoded.bits is not None
    write_atomically(path, encoded.data)
    written = time.perf_counter()
    data = path.read_bytes()
    decoded = codec.decode(data, MAX_PIXELS)  # this program's own file may have any size
    read = time.perf_counter()

    y_hat = encoded.y_hat.to(codec.device).float()[None]
    z_hat = None if encoded.z_hat is None else encoded.z_hat.to(codec.device).float()[None]
    bits = codec.model.bits(y_hat, z_hat)
    bits_y, bits_z = bits.y[0].cpu(), bits.z[0].cpu()
    height, width = image.shape[-2:]
    quality = compare_images(image.cpu(), decoded.image)
    row = CodingRow(
        name=name,
        width=width,
        height=height,
        file_bytes=len(data),
        header_bytes=encoded.header_bytes,
        file_bpp=8 * len(data) / (height * width),
        cross_entropy_bpp=float(bits_y.sum() + bits_z.sum()) / (height * width),
        exact_bpp=encoded.bits / (height * width),
        file_psnr=quality.psnr,
        file_ms_ssim=quality.ms_ssim,
        mismatched_symbols=count_mismatches(encoded, decoded),
        encode_seconds=written - start,
        decode_seconds=read - written,
        level=encoded.level,
    )
    return CodedImage(row, image.cpu(), decoded.image, y_hat[0].cpu(), bits_y, bits_z)


def mean_of(rows: Sequence[object], name: str) -> float:
    """Average an attribute over rows that all have it."""
    return math.fsum(getattr(row, name) for row in rows) / len(rows)


def mean_of_known(rows: Sequence[object], name: str) -> float | None:
    """Average an attribute over the rows in which it is not None; return None if there are no such rows."""
    values = [value for row in rows if (value := getattr(row, name)) is not None]
    return math.fsum(values) / len(values) if values else None


def mean_row(rows: Sequence[CodingRow]) -> CodingRow:
    """Average over images with equal weight; MS-SSIM only over images that have it, and mismatched symbols summed.

    Args:
        rows: at least one row.
    """
    mean = partial(mean_of, rows)
    return CodingRow(
        name="mean",
        width=round(mean("width")),
        height=round(mean("height")),
        file_bytes=round(mean("file_bytes")),
        header_bytes=round(mean("header_bytes")),
        file_bpp=mean("file_bpp"),
        cross_entropy_bpp=mean("cross_entropy_bpp"),
        exact_bpp=mean("exact_bpp"),
        file_psnr=mean("file_psnr"),
        file_ms_ssim=mean_of_known(rows, "file_ms_ssim"),
        mismatched_symbols=sum(row.mismatched_symbols for row in rows),
        encode_seconds=mean("encode_seconds"),
        decode_seconds=mean("decode_seconds"),
        level=mean_of_known(rows, "level"),
    )
