"""Encodes to a target: finds the level at which a variable-rate model gives a file of that size, rate or PSNR.

The image is analyzed once. The energy of its latents gives an estimate of the rate, which is off by about 10 %, and its
slope. Starting from the level at which this estimate meets the target, encoding whole files, usually two, gives the
exact level.

A search for better latents takes most of an encoder's time, and it changes rate and PSNR. So a file without a search
and one after a brief search correct the first estimate; usually, one full search is then enough, see `level_search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from jahp_pl.codec.bitstream import Header
from jahp_pl.codec.encoder import ImageEncoder
from jahp_pl.codec.latents import SearchLength
from jahp_pl.codec.level_search import File, Goal, Trial, search_levels
from jahp_pl.codec.level_steps import STEPS_PER_LEVEL, highest_level_steps
from jahp_pl.codec.targets import Target, TargetError, level_steps_of, probe_levels
from jahp_pl.text import count_of

SIZE_SLACK = 0.012
"""The search for a size ends at a file that is smaller by at most this share of it."""
RATE_SLACK = 0.006
"""The search for a rate ends at a file that deviates from it by at most this share of it."""
RATE_TOLERANCE = 0.01
"""Relative deviation up to which a rate counts as met, see `Target.bpp`."""
BYTES_SLACK = 16
"""Additional tolerance in bytes, for small files: four words of the range coder."""
PSNR_SLACK = 0.05
"""The search for a PSNR ends at a file that exceeds it by at most this number of dB."""
ESTIMATE_SLACK = 0.005
"""Tolerance of the log of the estimated rate; the estimate itself is off by about 10 %."""
SLOPE_REACH = STEPS_PER_LEVEL // 4
"""Level steps in either direction over which the slope is computed."""
RATE_SLOPE = 0.35 / STEPS_PER_LEVEL
"""Approximate increase of the log rate per level step."""
PSNR_SLOPE = 1.4 / STEPS_PER_LEVEL
"""Approximate increase of the PSNR per level step, in dB."""
PLAIN_PSNR_SLACK = 0.2
"""A search begins at a level whose PSNR with plain rounding is within this number of dB of the requested one."""
FULL_SEARCH_GAIN = 0.19
"""dB by which the PSNR after a full search usually exceeds that after a brief one."""
PSNR_SHRINKAGE_SLOPE, RATE_SHRINKAGE_SLOPE = -3.3, -0.6
"""Approximate changes of the PSNR in dB and of the log rate per unit of `ImageEncoder.round_and_encode`'s shrinkage."""
SEARCH_SLOPE_RATIO = 1.15
"""Ratio of the slope of the log rate after a search to the slope of the estimate, which is without one."""
AIMED_EXCESS = 0.01
"""Share of the size by which the first search aims above it, because shrinking latents is cheaper than growing them."""


def encode_to_target(encoder: ImageEncoder, target: Target, num_levels: int) -> File:
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
    highest = highest_level_steps(num_levels)
    if target.size is not None:
        return _encode_to_size(encoder, target.size, highest)
    if target.bpp is not None:
        return _encode_to_bpp(encoder, target.bpp, highest)
    if target.psnr is not None:
        return _encode_to_psnr(encoder, target.psnr, highest)
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
        is_largest = header.level_steps == highest_level_steps(num_levels)
        return num_bytes <= target.size and (is_largest or num_bytes >= (1 - SIZE_SLACK) * target.size - BYTES_SLACK)
    if target.bpp is not None:
        target_bytes = target.bpp * header.width * header.height / 8
        return abs(num_bytes - target_bytes) <= RATE_TOLERANCE * target_bytes + BYTES_SLACK
    return True


def _encode_to_psnr(encoder: ImageEncoder, psnr: float, highest: int) -> File:
    """Return a file of the lowest level found, from 0 to `highest` steps, whose PSNR is at least `psnr` dB.

    Raises:
        TargetError: if no level reaches it.
    """
    goal = Goal(
        encoder.psnr, psnr + PSNR_SLACK / 2, lambda value: psnr <= value <= psnr + PSNR_SLACK, PSNR_SHRINKAGE_SLOPE
    )
    if encoder.is_refined:
        trials = _searched_files_of_psnr(encoder, goal, psnr, highest)
    else:
        probes = probe_levels(encoder.plain_psnr, psnr, highest, highest // 2, PSNR_SLOPE, goal.is_good)
        best_probe = max(probes, key=lambda probe: probe.value)
        chosen = next((probe for probe in probes if probe.value >= psnr), best_probe)
        trials = [Trial(encoder.encode(chosen.level_steps), chosen.value)]
    reached = [trial for trial in trials if trial.value >= psnr]
    if not reached:
        best = math.floor(100 * max(trial.value for trial in trials)) / 100  # rounded down, so that it can be reached
        raise TargetError(
            f"psnr {psnr:g} dB: this image reaches {best:.2f} dB at most; ask for psnr {best:.2f} or less"
        )
    smallest = min(reached, key=lambda trial: len(trial.file.data))
    return smallest.file._replace(psnr=smallest.value)


def _searched_files_of_psnr(encoder: ImageEncoder, goal: Goal, psnr: float, highest: int) -> list[Trial]:
    """Search for better latents at levels, from 0 to `highest` steps, whose PSNR is near `psnr`."""
    plain = probe_levels(
        encoder.plain_psnr, psnr, highest, highest // 2, PSNR_SLOPE, lambda value: abs(value - psnr) <= PLAIN_PSNR_SLACK
    )
    start = min(plain, key=lambda probe: abs(probe.value - psnr)).level_steps
    start += round((goal.aim - encoder.brief_psnr(start) - FULL_SEARCH_GAIN) / PSNR_SLOPE)
    return search_levels(encoder, goal, highest, start, PSNR_SLOPE)


def _encode_to_size(encoder: ImageEncoder, size: int, highest: int) -> File:
    """Return the file of the highest level found, from 0 to `highest` steps, that has at most `size` bytes.

    Raises:
        TargetError: if no level fits.
    """
    aim = size * (1 - SIZE_SLACK / 3)
    files = _files_near(encoder, aim, highest, lambda num_bytes: 1 - SIZE_SLACK <= num_bytes / size <= 1)
    fitting = [file for file in files if len(file.data) <= size]
    if not fitting:
        smallest = min(len(file.data) for file in files)
        raise TargetError(
            f"size {count_of(size, 'byte')}: the smallest file of this image has {smallest}; ask for more"
        )
    return max(fitting, key=lambda file: (file.level, len(file.data)))


def _encode_to_bpp(encoder: ImageEncoder, bpp: float, highest: int) -> File:
    """Return the file found that is nearest to `bpp` bits per pixel, of a level from 0 to `highest` steps.

    Raises:
        TargetError: if the rate is outside the range of the levels.
    """
    aim = bpp * encoder.num_pixels / 8
    files = _files_near(encoder, aim, highest, lambda num_bytes: abs(num_bytes / aim - 1) <= RATE_SLACK)
    nearest = min(files, key=lambda file: abs(math.log(len(file.data) / aim)))
    smallest, largest = (extreme(len(file.data) for file in files) for extreme in (min, max))
    # If no level has the rate, the search ended at the lowest or highest one, near which rates may hardly change.
    if not smallest <= aim <= largest and abs(len(nearest.data) / aim - 1) > RATE_TOLERANCE:
        rate = 8 * len(nearest.data) / encoder.num_pixels
        limit, remedy = ("at least", "more") if aim < smallest else ("at most", "less")
        raise TargetError(f"bpp {bpp:g}: this image takes {limit} {rate:.4f} bits per pixel; ask for {remedy}")
    return nearest


def _files_near(encoder: ImageEncoder, aim: float, highest: int, is_good: Callable[[float], bool]) -> list[File]:
    """Encode files until the length of one is good or no level is left between too short and too long ones.

    Args:
        encoder: encoder of the image.
        aim: requested length in bytes.
        highest: highest level in steps.
        is_good: returns whether a length in bytes is close enough.

    Returns:
        The files in the order in which they were encoded.
    """
    # Rounded, because the length is a whole number and its bounds are exact
    goal = Goal(_log_bytes, math.log(aim), lambda value: is_good(round(math.exp(value))), RATE_SHRINKAGE_SLOPE)
    start, slope = _first_estimate(encoder, aim, highest)
    if encoder.is_refined:
        start, slope = _searched_estimate(encoder, goal.aim + AIMED_EXCESS, highest, start, slope)
    return [trial.file for trial in search_levels(encoder, goal, highest, start, slope)]


def _first_estimate(encoder: ImageEncoder, aim: float, highest: int) -> tuple[int, float]:
    """Find the level in steps whose estimated file has `aim` bytes, and the slope of the log rate per step there."""

    def log_bytes(level_steps: int) -> float:
        return math.log(max(encoder.estimate_bytes(level_steps), 1.0))

    log_aim = math.log(aim)
    probes = probe_levels(
        log_bytes, log_aim, highest, highest // 2, RATE_SLOPE, lambda value: abs(value - log_aim) < ESTIMATE_SLACK
    )
    nearest = min(probes, key=lambda probe: abs(probe.value - log_aim)).level_steps
    low, high = max(nearest - SLOPE_REACH, 0), min(nearest + SLOPE_REACH, highest)
    return nearest, max((log_bytes(high) - log_bytes(low)) / (high - low), 1e-5)


def _searched_estimate(
    encoder: ImageEncoder, log_aim: float, highest: int, start: int, slope: float
) -> tuple[int, float]:
    """Correct an estimate for files after a search, using one file with plain rounding and one after a brief search.

    Args:
        encoder: encoder of the image.
        log_aim: log of the requested length in bytes.
        highest: highest level in steps.
        start, slope: result of `_first_estimate`.

    Returns:
        The corrected level in steps, and the slope of the log rate per step.
    """

    def corrected(level_steps: int, search: SearchLength, slope: float) -> int:
        file = encoder.round_and_encode(encoder.refine(level_steps, search), level_steps)
        return min(max(level_steps - round((_log_bytes(file) - log_aim) / slope), 0), highest)

    plain, searched_slope = corrected(start, "none", slope), slope * SEARCH_SLOPE_RATIO
    return corrected(plain, "brief", searched_slope), searched_slope


def _log_bytes(file: File) -> float:
    """Return the logarithm of the length of a file in bytes."""
    return math.log(len(file.data))
