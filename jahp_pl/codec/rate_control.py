"""Encoding to a target: which level of a variable-rate model gives a file of that size, rate or PSNR.

The image is analysed once. A sketch of the rate, from some rows of its latents, finds the level roughly; whole files,
two as a rule, find it exactly.
"""

from __future__ import annotations

import math

import torch

from jahp_pl.codec.bitstream import LEVEL_STEPS, Header
from jahp_pl.codec.encoder import Encoded, ImageEncoder
from jahp_pl.codec.targets import Target, TargetError, find_level, steps_of
from jahp_pl.hyperprior import STRIDE

SIZE_SLACK = 0.012
"""A file may be smaller than asked for by this share."""
RATE_SLACK = 0.006
"""A rate may be off by this share, to either side."""
WORDS = 16
"""Bytes of four words of the range coder, by which a small file may be off as well."""
PSNR_SLACK = 0.05
"""dB by which a PSNR may exceed what was asked for."""
SKETCHED = 4
"""One in so many groups of rows of latents is sketched."""
MIN_GROUPS = 8
"""With fewer groups of rows an image is small, and whole files are as quick."""
RATE_SLOPE = 0.35 / LEVEL_STEPS
"""Of the logarithm of the rate per step, about."""
PSNR_SLOPE = 1.4 / LEVEL_STEPS
"""dB per step, about."""


def encode_to_target(encoder: ImageEncoder, target: Target, num_levels: int) -> Encoded:
    """A file of a variable-rate model that meets the target.

    Args:
        encoder: of the image.
        target: what is asked of the file.
        num_levels: of the model.

    Raises:
        TargetError: no level meets it; the message says what can be had.
    """
    last = (num_levels - 1) * LEVEL_STEPS
    level = steps_of(target, num_levels)
    if level is not None:
        return encoder.encode(level)
    if target.psnr is not None:
        return _encode_to_psnr(encoder, target.psnr, last)
    return _encode_to_rate(encoder, target, last)


def may_be_of(header: Header, num_bytes: int, target: Target, num_levels: int) -> bool:
    """Whether a file can be what `encode_to_target` gives, judged by its level and its length; a PSNR is not judged.

    Args:
        header: of the file.
        num_bytes: of the whole file.
        target: what is asked of it.
        num_levels: of the model that made it.
    """
    if num_levels == 1 or header.level is None:
        return num_levels == 1 and header.level is None
    if (level := steps_of(target, num_levels)) is not None:
        return header.level == level
    if target.size is not None:
        is_largest = header.level == (num_levels - 1) * LEVEL_STEPS
        return num_bytes <= target.size and (is_largest or num_bytes >= (1 - SIZE_SLACK) * target.size - WORDS)
    if target.bpp is not None:
        wanted = target.bpp * header.width * header.height / 8
        return abs(num_bytes - wanted) <= 0.01 * wanted + WORDS
    return True


def _encode_to_psnr(encoder: ImageEncoder, psnr: float, last: int) -> Encoded:
    """A file of the lowest level found whose PSNR is not below `psnr`."""
    files: dict[int, Encoded] = {}

    def searched(level: int) -> float:
        files[level] = encoder.encode(level)
        return encoder.psnr(files[level])

    value_at = encoder.plain_psnr if encoder.refine is None else searched
    probes = find_level(value_at, psnr, last, last // 2, PSNR_SLOPE, lambda value: psnr <= value <= psnr + PSNR_SLACK)
    reached = [probe.level for probe in probes if probe.value >= psnr]
    if not reached:
        raise TargetError(f"{psnr:g} dB: this model reaches {probes[-1].value:.2f} dB at most for this image")
    return files[reached[0]] if reached[0] in files else encoder.encode(reached[0])


def _encode_to_rate(encoder: ImageEncoder, target: Target, last: int) -> Encoded:
    files: dict[int, Encoded] = {}

    def log_bytes(level: int) -> float:
        files[level] = encoder.encode(level)
        return math.log(len(files[level].data))

    if target.size is not None:
        wanted = float(target.size)
        low, high = 1 - SIZE_SLACK, 1.0
        aim = math.log(wanted * (1 - SIZE_SLACK / 3))
    else:
        assert target.bpp is not None
        wanted = target.bpp * encoder.num_pixels / 8
        low, high = 1 - RATE_SLACK, 1 + RATE_SLACK
        aim = math.log(wanted)
    start, slope = _sketch(encoder, aim, last)
    probes = find_level(log_bytes, aim, last, start, slope, lambda value: low <= math.exp(value) / wanted <= high)
    if target.size is not None:
        fitting = [probe.level for probe in probes if len(files[probe.level].data) <= target.size]
        if not fitting:
            smallest = min(len(file.data) for file in files.values())
            raise TargetError(f"{target.size} bytes: the smallest file of this image takes {smallest} bytes")
        return files[fitting[-1]]
    nearest = min(files.values(), key=lambda file: abs(math.log(len(file.data) / wanted)))
    rate = 8 * len(nearest.data) / encoder.num_pixels
    is_at_end = nearest.level in (0, last / LEVEL_STEPS)
    if is_at_end and not 0.99 <= len(nearest.data) / wanted <= 1.01:
        end = "least" if nearest.level == 0 else "most"
        raise TargetError(f"{target.bpp:g} bits per pixel: this model gives {rate:.4f} at {end} for this image")
    return nearest


def _sketch(encoder: ImageEncoder, aim: float, last: int) -> tuple[int, float]:
    """Where to begin: a level, and the slope of the logarithm of the rate there, from a part of the latents."""
    num_groups = encoder.num_rows // STRIDE
    if num_groups < MIN_GROUPS:
        return last // 2, RATE_SLOPE
    rows = torch.arange(num_groups * STRIDE).view(num_groups, STRIDE)[SKETCHED // 2 :: SKETCHED].flatten()
    share = len(rows) / encoder.num_rows

    def log_bytes(level: int) -> float:
        return math.log(max(encoder.count_bits(rows, level), 1.0) / share / 8)

    probes = find_level(log_bytes, aim, last, last // 2, RATE_SLOPE, lambda value: abs(value - aim) < 0.03)
    best = min(probes, key=lambda probe: abs(probe.value - aim))
    others = [probe for probe in probes if probe is not best]
    if not others:
        return best.level, RATE_SLOPE
    other = min(others, key=lambda probe: abs(probe.level - best.level))
    slope = (best.value - other.value) / (best.level - other.level)
    return best.level + round((aim - best.value) / max(slope, 1e-5)), max(slope, 1e-5)
