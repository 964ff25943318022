"""Targets that cannot be met are refused with the possible range; qualities are levels of the model."""

from __future__ import annotations

import math

import pytest

from jahp_pl.codec.targets import Target, TargetError, level_steps_of, probe_levels, quality_of
from tests.support.codec_models import kodak_crop, variable_codec

IMAGE = kodak_crop()
CODEC = variable_codec()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"size": 1}, "size 1 byte: the smallest file of this image has"),
        ({"size": 40}, "size 40 bytes: the smallest file of this image has"),
        ({"bpp": 1e-3}, "bpp 0.001: this image takes at least .* bits per pixel; ask for more"),
        ({"bpp": 23.0}, "bpp 23: this image takes at most .* bits per pixel; ask for less"),
        ({"psnr": 90.0}, r"psnr 90 dB: this image reaches (.*) dB at most; ask for psnr \1 or less"),
        ({"quality": 0.5}, r"quality 0.5: must be from 1 \(smallest files\) to 100"),
        ({"quality": 101}, "quality 101: must be from 1"),
        ({"size": 0}, "size 0: must be positive"),
        ({"bpp": math.inf}, "bpp inf: must be positive and finite"),
        ({"quality": 50, "size": 1000}, "quality and size: cannot be combined; give only one of them"),
    ],
)
def test_an_unreachable_target_is_refused_with_the_possible_range(target: dict[str, float], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        CODEC.compress(IMAGE, **target)  # type: ignore[arg-type]


def test_the_default_quality_is_sixty() -> None:
    assert CODEC.compress(IMAGE) == CODEC.compress(IMAGE, quality=60)


def test_quality_and_level_convert_both_ways() -> None:
    for quality in (1, 33.3, 100):
        steps = level_steps_of(Target(quality=quality), 8)
        assert steps is not None
        assert quality_of(steps / 256, 8) == pytest.approx(quality, abs=0.03)


def test_a_search_ends_when_no_level_is_left_between_two() -> None:
    tried: list[int] = []

    def stairs(level: int) -> float:
        tried.append(level)
        return float(level > 1000)

    probes = probe_levels(stairs, 0.5, 1792, 5, 0.01, lambda value: False)
    assert len(tried) == len(set(tried)) <= 20
    assert probes[0].value == 0
    assert probes[-1].value == 1
