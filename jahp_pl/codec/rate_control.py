"""Encodes to a target: finds the level at which a variable-rate model gives a file of that size, rate or PSNR.

The image is analyzed once. An estimate of the rate from the energy of its latents gives the level to a few percent,
and the slope there; encoding whole files, usually two, then gives the exact level.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from jahp_pl.codec.arrays import IntArray
from jahp_pl.codec.bitstream import Header
from jahp_pl.codec.encoder import ImageEncoder
from jahp_pl.codec.latents import Encoded
from jahp_pl.codec.level_steps import STEPS_PER_LEVEL, last_level_steps
from jahp_pl.codec.targets import Target, TargetError, level_steps_of, probe_levels
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
SLOPE_REACH = STEPS_PER_LEVEL // 4
"""Level steps in either direction over which the slope is computed."""
RATE_SLOPE = 0.35 / STEPS_PER_LEVEL
"""Approximate increase of the log rate per level step."""
PSNR_SLOPE = 1.4 / STEPS_PER_LEVEL
"""Approximate increase of the PSNR per level step, in dB."""


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
    last = last_level_steps(num_levels)
    if target.size is not None:
        return _encode_to_size(encoder, target.size, last)
    if target.bpp is not None:
        return _encode_to_bpp(encoder, target.bpp, last)
    if target.psnr is not None:
        return _encode_to_psnr(encoder, target.psnr, last)
    return encoder.encode(level_steps_of(target, num_levels))


def may_meet_target(header: Header, num_bytes: int, target: Target, num_levels: int) -> bool:
    """Check by level and length whether a file can be a result of `encode_to_target`; its PSNR is not checked.

    Args:
        header: header of the file.
        num_bytes: length of the whole file.
        target: requested target.
        num_levels: number of levels of the model that made it.
    """
    if num_levels == 1 or header.level_steps is None:
        return num_levels == 1 and header.level_steps is None
    if (level_steps := level_steps_of(target, num_levels)) is not None:
        return header.level_steps == level_steps
    if target.size is not None:
        is_largest = header.level_steps == last_level_steps(num_levels)
        return num_bytes <= target.size and (is_largest or num_bytes >= (1 - SIZE_SLACK) * target.size - BYTES_SLACK)
    if target.bpp is not None:
        target_bytes = target.bpp * header.width * header.height / 8
        return abs(num_bytes - target_bytes) <= RATE_TOLERANCE * target_bytes + BYTES_SLACK
    return True


def _encode_to_psnr(encoder: ImageEncoder, psnr: float, last: int) -> Encoded[IntArray]:
    """Return a file of the lowest level found whose PSNR is at least `psnr` dB; `last` is the highest level in steps.

    Raises:
        TargetError: if no level reaches it.
    """
    files: dict[int, Encoded[IntArray]] = {}

    def searched_psnr(level_steps: int) -> float:
        files[level_steps] = encoder.encode(level_steps)
        return encoder.psnr(files[level_steps])

    value_at = searched_psnr if encoder.is_refined else encoder.plain_psnr
    probes = probe_levels(value_at, psnr, last, last // 2, PSNR_SLOPE, lambda value: psnr <= value <= psnr + PSNR_SLACK)
    reached = [probe for probe in probes if probe.value >= psnr]
    if not reached:
        best = math.floor(100 * max(probe.value for probe in probes)) / 100  # rounded down, so that it can be reached
        raise TargetError(
            f"psnr {psnr:g} dB: this image reaches {best:.2f} dB at most; ask for psnr {best:.2f} or less"
        )
    lowest = reached[0]
    file = files.get(lowest.level_steps) or encoder.encode(lowest.level_steps)
    return file._replace(psnr=lowest.value)


def _encode_to_size(encoder: ImageEncoder, size: int, last: int) -> Encoded[IntArray]:
    """Return the file of the highest level found within `size` bytes; `last` is the highest level in steps.

    Raises:
        TargetError: if no level fits.
    """
    aim = size * (1 - SIZE_SLACK / 3)
    files = _files_near(encoder, aim, last, lambda num_bytes: 1 - SIZE_SLACK <= num_bytes / size <= 1)
    fitting = [level_steps for level_steps, file in files.items() if len(file.data) <= size]
    if not fitting:
        smallest = min(len(file.data) for file in files.values())
        raise TargetError(
            f"size {count_of(size, 'byte')}: the smallest file of this image has {smallest}; ask for more"
        )
    return files[max(fitting)]


def _encode_to_bpp(encoder: ImageEncoder, bpp: float, last: int) -> Encoded[IntArray]:
    """Return the file found that is nearest to `bpp` bits per pixel; `last` is the highest level in steps.

    Raises:
        TargetError: if the rate is outside the range of the levels.
    """
    aim = bpp * encoder.num_pixels / 8
    files = _files_near(encoder, aim, last, lambda num_bytes: abs(num_bytes / aim - 1) <= RATE_SLACK).values()
    nearest = min(files, key=lambda file: abs(math.log(len(file.data) / aim)))
    smallest, largest = (extreme(len(file.data) for file in files) for extreme in (min, max))
    # Outside the range, the search went to one end, where rates may not change with the level.
    if not smallest <= aim <= largest and abs(len(nearest.data) / aim - 1) > RATE_TOLERANCE:
        rate = 8 * len(nearest.data) / encoder.num_pixels
        limit, remedy = ("at least", "more") if aim < smallest else ("at most", "less")
        raise TargetError(f"bpp {bpp:g}: this image takes {limit} {rate:.4f} bits per pixel; ask for {remedy}")
    return nearest


def _files_near(
    encoder: ImageEncoder, aim: float, last: int, is_good: Callable[[float], bool]
) -> dict[int, Encoded[IntArray]]:
    """Encode files until the length of one is good or no level is left between too short and too long ones.

    Args:
        encoder: encoder of the image.
        aim: requested length in bytes.
        last: highest level in steps.
        is_good: returns whether a length in bytes is close enough.

    Returns:
        Each file by its level in steps, in the order in which they were encoded.
    """
    files: dict[int, Encoded[IntArray]] = {}

    def log_bytes(level_steps: int) -> float:
        files[level_steps] = encoder.encode(level_steps)
        return math.log(len(files[level_steps].data))

    start, slope = _first_estimate(encoder, aim, last)
    probe_levels(log_bytes, math.log(aim), last, start, slope, lambda value: is_good(math.exp(value)))
    return files


def _first_estimate(encoder: ImageEncoder, aim: float, last: int) -> tuple[int, float]:
    """Find the level in steps whose estimated file has `aim` bytes, and the slope of the log rate per step there."""

    def log_bytes(level_steps: int) -> float:
        return math.log(max(encoder.estimate_bytes(level_steps), 1.0))

    log_aim = math.log(aim)
    probes = probe_levels(
        log_bytes, log_aim, last, last // 2, RATE_SLOPE, lambda value: abs(value - log_aim) < ESTIMATE_SLACK
    )
    nearest = min(probes, key=lambda probe: abs(probe.value - log_aim)).level_steps
    low, high = max(nearest - SLOPE_REACH, 0), min(nearest + SLOPE_REACH, last)
    return nearest, max((log_bytes(high) - log_bytes(low)) / (high - low), 1e-5)
