"""Encodes to a target: finds the level at which a variable-rate model gives a file of that size, rate or PSNR.

The image is analyzed once. An estimate of the rate from the energy of its latents gives the level to a few percent,
and the slope there; encoding whole files, usually two, then gives the exact level.
"""

from __future__ import annotations

import math

from jahp_pl.codec.arrays import IntArray
from jahp_pl.codec.bitstream import LEVEL_STEPS, Header
from jahp_pl.codec.encoder import ImageEncoder
from jahp_pl.codec.latents import Encoded
from jahp_pl.codec.targets import Target, TargetError, find_level, steps_of
from jahp_pl.text import count_of

SIZE_SLACK = 0.012
"""Relative amount below the requested size at which the search for it ends."""
RATE_SLACK = 0.006
"""Relative deviation of a rate, in either direction, at which the search for it ends."""
RATE_TOLERANCE = 0.01
"""Relative deviation up to which a rate counts as met, see `Target.bpp`."""
BYTES_SLACK = 16
"""Additional tolerance in bytes, for small files: four words of the range coder."""
PSNR_SLACK = 0.05
"""dB by which a PSNR may exceed the requested one."""
ESTIMATE_SLACK = 0.005
"""Tolerance of the log of the estimated rate; the estimate itself is off by about 5 %."""
SLOPE_SPAN = LEVEL_STEPS // 4
"""Level steps in either direction over which the slope is computed."""
RATE_SLOPE = 0.35 / LEVEL_STEPS
"""Approximate increase of the log rate per step."""
PSNR_SLOPE = 1.4 / LEVEL_STEPS
"""Approximate increase of the PSNR per step, in dB."""


def encode_to_target(encoder: ImageEncoder, target: Target, num_levels: int) -> Encoded[IntArray]:
    """Encode an image to a file that meets the target.

    Args:
        encoder: encoder of the image.
        target: requested quality, size, rate, PSNR or level; ignored by a single-rate model, see `check_target`.
        num_levels: number of rate levels of the model; 1 for a single-rate model.

    Raises:
        TargetError: if no level meets it; the message says what is possible.
    """
    if num_levels == 1:
        return encoder.encode(None)
    last = (num_levels - 1) * LEVEL_STEPS
    level = steps_of(target, num_levels)
    if level is not None:
        return encoder.encode(level)
    if target.psnr is not None:
        return _encode_to_psnr(encoder, target.psnr, last)
    return _encode_to_rate(encoder, target, last)


def may_meet_target(header: Header, num_bytes: int, target: Target, num_levels: int) -> bool:
    """Check by level and length whether a file can be a result of `encode_to_target`; its PSNR is not checked.

    Args:
        header: header of the file.
        num_bytes: length of the whole file.
        target: requested target.
        num_levels: number of levels of the model that made it.
    """
    if num_levels == 1 or header.level is None:
        return num_levels == 1 and header.level is None
    if (level := steps_of(target, num_levels)) is not None:
        return header.level == level
    if target.size is not None:
        is_largest = header.level == (num_levels - 1) * LEVEL_STEPS
        return num_bytes <= target.size and (is_largest or num_bytes >= (1 - SIZE_SLACK) * target.size - BYTES_SLACK)
    if target.bpp is not None:
        target_bytes = target.bpp * header.width * header.height / 8
        return abs(num_bytes - target_bytes) <= RATE_TOLERANCE * target_bytes + BYTES_SLACK
    return True


def _encode_to_psnr(encoder: ImageEncoder, psnr: float, last: int) -> Encoded[IntArray]:
    """Return a file of the lowest level found whose PSNR is at least `psnr` dB."""
    files: dict[int, Encoded[IntArray]] = {}

    def searched(level: int) -> float:
        files[level] = encoder.encode(level)
        return encoder.psnr(files[level])

    value_at = encoder.plain_psnr if not encoder.is_refined else searched
    probes = find_level(value_at, psnr, last, last // 2, PSNR_SLOPE, lambda value: psnr <= value <= psnr + PSNR_SLACK)
    reached = [probe for probe in probes if probe.value >= psnr]
    if not reached:
        best = math.floor(100 * max(probe.value for probe in probes)) / 100  # rounded down, so that it can be reached
        raise TargetError(
            f"psnr {psnr:g} dB: this image reaches {best:.2f} dB at most; ask for psnr {best:.2f} or less"
        )
    lowest = reached[0]
    file = files[lowest.level] if lowest.level in files else encoder.encode(lowest.level)
    return file._replace(psnr=lowest.value)


def _encode_to_rate(encoder: ImageEncoder, target: Target, last: int) -> Encoded[IntArray]:
    """Return the largest file found within `target.size`, or the one nearest to `target.bpp`."""
    files: dict[int, Encoded[IntArray]] = {}

    def log_bytes(level: int) -> float:
        files[level] = encoder.encode(level)
        return math.log(len(files[level].data))

    if target.size is not None:
        target_bytes = float(target.size)
        low, high = 1 - SIZE_SLACK, 1.0
        aim = math.log(target_bytes * (1 - SIZE_SLACK / 3))
    else:
        assert target.bpp is not None
        target_bytes = target.bpp * encoder.num_pixels / 8
        low, high = 1 - RATE_SLACK, 1 + RATE_SLACK
        aim = math.log(target_bytes)
    start, slope = _first_estimate(encoder, aim, last)
    probes = find_level(log_bytes, aim, last, start, slope, lambda value: low <= math.exp(value) / target_bytes <= high)
    if target.size is not None:
        fitting = [probe.level for probe in probes if len(files[probe.level].data) <= target.size]
        if not fitting:
            smallest = min(len(file.data) for file in files.values())
            raise TargetError(
                f"size {count_of(target.size, 'byte')}: the smallest file of this image has {smallest}; ask for more"
            )
        return files[fitting[-1]]
    nearest = min(files.values(), key=lambda file: abs(math.log(len(file.data) / target_bytes)))
    rate = 8 * len(nearest.data) / encoder.num_pixels
    lengths = [len(file.data) for file in files.values()]
    is_beyond = (
        not min(lengths) <= target_bytes <= max(lengths)
    )  # then the search went to an end, where rates may not change
    if is_beyond and not 1 - RATE_TOLERANCE <= len(nearest.data) / target_bytes <= 1 + RATE_TOLERANCE:
        limit, remedy = ("at least", "more") if target_bytes < min(lengths) else ("at most", "less")
        raise TargetError(f"bpp {target.bpp:g}: this image takes {limit} {rate:.4f} bits per pixel; ask for {remedy}")
    return nearest


def _first_estimate(encoder: ImageEncoder, aim: float, last: int) -> tuple[int, float]:
    """Find the level whose estimated file has exp(aim) bytes, and the slope of the log rate there."""

    def estimate(level: int) -> float:
        return math.log(max(encoder.estimate_bytes(level), 1.0))

    probes = find_level(estimate, aim, last, last // 2, RATE_SLOPE, lambda value: abs(value - aim) < ESTIMATE_SLACK)
    level = min(probes, key=lambda probe: abs(probe.value - aim)).level
    low, high = max(level - SLOPE_SPAN, 0), min(level + SLOPE_SPAN, last)
    return level, max((estimate(high) - estimate(low)) / (high - low), 1e-5)
